//! How to test an app that defers: `cargo run --example testing --features testing`.
//!
//! Each function that `main` calls is what you write as a `#[tokio::test]`. The first three run
//! callbacks inline, so that they are over when the response is there; the last one is in real time.

use std::error::Error;

use axum::{Router, body::Body, extract::Request, http::StatusCode, routing::post};
use axum_defer::{
    Completion, DeferLayer, Delivery, defer,
    testing::{Recorder, completion},
};
use http_body_util::BodyExt;
use tower::ServiceExt;

type Result = std::result::Result<(), Box<dyn Error>>;

// ── The app ─────────────────────────────────────────────────────────────────────────────────────

/// The app takes its layer from outside, so that a test can hand in one of its own.
fn app(deferred: DeferLayer) -> Router {
    Router::new().route("/orders", post(order)).layer(deferred)
}

async fn order(item: String) -> (StatusCode, &'static str) {
    defer(async { /* write to the log */ })
        .name("audit")
        .always();
    defer(async { /* send a mail */ }).name("receipt");
    defer(async { Err("the index is down") }).name("search index");
    defer(async { /* send another */ })
        .name("invoice")
        .when(is_to_be_paid);
    match item.as_str() {
        "gold" => (StatusCode::CONFLICT, "sold out"),
        _ => (StatusCode::CREATED, "thank you"),
    }
}

fn is_to_be_paid(completion: &Completion) -> bool {
    completion.is_success() && completion.is_complete()
}

// ── Its tests ───────────────────────────────────────────────────────────────────────────────────

fn request(item: &'static str) -> Request {
    let request = Request::post("/orders").body(Body::from(item));
    request.expect("a request")
}

async fn an_order_has_a_receipt_and_an_invoice() -> Result {
    let recorder = Recorder::new();
    let app = app(DeferLayer::new().inline().observer(recorder.clone()));
    let response = app.oneshot(request("tea")).await?;

    assert_eq!(response.status(), StatusCode::CREATED);
    recorder.assert_succeeded(["audit", "receipt", "invoice"]);
    recorder.assert_nothing_lost();
    Ok(())
}

async fn what_is_sold_out_is_in_the_log_and_nowhere_else() -> Result {
    let recorder = Recorder::new();
    let app = app(DeferLayer::new().inline().observer(recorder.clone()));
    let response = app.oneshot(request("gold")).await?;

    assert_eq!(response.status(), StatusCode::CONFLICT);
    recorder.assert_succeeded(["audit"]);
    recorder.assert_skipped(["receipt", "search index", "invoice"]);
    Ok(())
}

async fn an_index_that_is_down_is_reported() -> Result {
    let recorder = Recorder::new();
    let app = app(DeferLayer::new().inline().observer(recorder.clone()));
    app.oneshot(request("tea")).await?;

    recorder.assert_failed(["search index"]);
    let failure = recorder.failure("search index");
    assert_eq!(failure.as_deref(), Some("error: the index is down"));
    Ok(())
}

/// A rule is a function, and needs no app.
fn who_has_not_got_it_does_not_pay() {
    let cut_off = completion().delivery(Delivery::Aborted);
    assert!(!is_to_be_paid(&cut_off.build()));
    assert!(is_to_be_paid(&completion().build()));
}

/// As in production: callbacks run when the response is over, and the test waits for them.
async fn nothing_runs_before_the_response_is_over() -> Result {
    let recorder = Recorder::new();
    let layer = DeferLayer::new().observer(recorder.clone());
    let deferred = layer.handle();
    let response = app(layer).oneshot(request("tea")).await?;
    recorder.assert_succeeded([]);

    assert_eq!(
        response.into_body().collect().await?.to_bytes(),
        "thank you"
    );
    deferred.wait_idle().await;
    recorder.assert_succeeded(["audit", "receipt", "invoice"]);
    Ok(())
}

#[tokio::main]
async fn main() -> Result {
    an_order_has_a_receipt_and_an_invoice().await?;
    what_is_sold_out_is_in_the_log_and_nowhere_else().await?;
    an_index_that_is_down_is_reported().await?;
    who_has_not_got_it_does_not_pay();
    nothing_runs_before_the_response_is_over().await?;
    println!("5 tests passed");
    Ok(())
}

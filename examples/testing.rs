//! Testing an app that defers callbacks: `cargo run --example testing --features testing`.
//!
//! In your app, each function that `main` calls is a `#[tokio::test]`. The first three run callbacks
//! inline, so they have ended when the response is returned. The last one runs them as in production.

use std::error::Error;

use axum::{Router, body::Body, extract::Request, http::StatusCode, routing::post};
use axum_defer::{
    Completion, DeferLayer, Delivery, defer,
    testing::{Recorder, completion},
};
use http_body_util::BodyExt;
use tower::ServiceExt;

type Result = std::result::Result<(), Box<dyn Error>>;

// ── App ──────────────────────────────────────────────────────────────────────────────────────────

/// Takes the layer as an argument, so that a test can configure it.
fn app(layer: DeferLayer) -> Router {
    Router::new().route("/orders", post(order)).layer(layer)
}

async fn order(item: String) -> (StatusCode, &'static str) {
    defer(async { /* write to the log */ })
        .name("audit")
        .always();
    defer(async { /* send a mail */ }).name("receipt");
    defer(async { Err("the index is down") }).name("search index");
    defer(async { /* send another mail */ })
        .name("invoice")
        .when(is_payable);
    match item.as_str() {
        "gold" => (StatusCode::CONFLICT, "sold out"),
        _ => (StatusCode::CREATED, "thank you"),
    }
}

fn is_payable(completion: &Completion) -> bool {
    completion.is_success() && completion.is_complete()
}

// ── Tests ────────────────────────────────────────────────────────────────────────────────────────

fn request(item: &'static str) -> Request {
    let request = Request::post("/orders").body(Body::from(item));
    request.expect("a request")
}

async fn successful_order_runs_callbacks() -> Result {
    let recorder = Recorder::new();
    let app = app(DeferLayer::new().inline().observer(recorder.clone()));
    let response = app.oneshot(request("tea")).await?;

    assert_eq!(response.status(), StatusCode::CREATED);
    recorder.assert_succeeded(["audit", "receipt", "invoice"]);
    recorder.assert_nothing_lost();
    Ok(())
}

async fn failed_order_is_only_audited() -> Result {
    let recorder = Recorder::new();
    let app = app(DeferLayer::new().inline().observer(recorder.clone()));
    let response = app.oneshot(request("gold")).await?;

    assert_eq!(response.status(), StatusCode::CONFLICT);
    recorder.assert_succeeded(["audit"]);
    recorder.assert_skipped(["receipt", "search index", "invoice"]);
    Ok(())
}

async fn failed_callback_is_reported() -> Result {
    let recorder = Recorder::new();
    let app = app(DeferLayer::new().inline().observer(recorder.clone()));
    app.oneshot(request("tea")).await?;

    recorder.assert_failed(["search index"]);
    let failure = recorder.failure("search index");
    assert_eq!(failure.as_deref(), Some("error: the index is down"));
    Ok(())
}

/// A rule is a function and can be tested alone.
fn aborted_response_is_not_payable() {
    let aborted = completion().delivery(Delivery::Aborted);
    assert!(!is_payable(&aborted.build()));
    assert!(is_payable(&completion().build()));
}

/// Without `inline`, callbacks run after the response, and the test waits for them.
async fn callbacks_run_after_the_response() -> Result {
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
    successful_order_runs_callbacks().await?;
    failed_order_is_only_audited().await?;
    failed_callback_is_reported().await?;
    aborted_response_is_not_payable();
    callbacks_run_after_the_response().await?;
    println!("5 tests passed");
    Ok(())
}

//! Handlers that defer emails, a search index that is sometimes down, a job that panics, and an export.

use std::{convert::Infallible, time::Duration};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::Path,
    http::StatusCode,
    response::IntoResponse,
    routing::{get, post},
};
use axum_defer::{before_response, defer, defer_blocking};
use futures_util::stream::{self, StreamExt};
use tokio::time::sleep;

use crate::search;

pub(crate) fn routes() -> Router {
    Router::new()
        .route("/orders/{id}", post(order))
        .route("/sign-up/{name}", post(sign_up))
        .route("/payments/{id}", post(payment))
        .route("/photos/{id}", post(photo))
        .route("/reports/{id}", get(report))
        .route("/export", post(export))
}

async fn order(Path(id): Path<u64>) -> (StatusCode, &'static str) {
    sleep(millis(5 + id % 7 * 4)).await;
    defer(work(60 + id % 5 * 45)).name("receipt mail");
    defer(search::index(id)).name("search index");
    defer(work(4)).name("audit").always();
    if id % 9 == 4 {
        return (StatusCode::CONFLICT, "sold out");
    }
    (StatusCode::CREATED, "thank you")
}

async fn sign_up(Path(name): Path<String>) -> &'static str {
    let mail = defer(work(90)).name("welcome mail");
    if name == "bob" {
        mail.cancel();
    }
    // The page shows markup in names as text.
    defer(work(10)).name(format!("<b>hello</b> {name}"));
    "welcome"
}

async fn payment(Path(id): Path<u64>) -> &'static str {
    before_response(async move {
        sleep(millis(25)).await;
        if id % 8 == 5 {
            Err("the database is gone")
        } else {
            Ok(())
        }
    })
    .name("commit");
    defer(work(30)).name("receipt mail");
    "paid"
}

async fn photo(Path(id): Path<u64>) -> StatusCode {
    defer_blocking(|| std::thread::sleep(millis(40))).name("thumbnail");
    defer(async move {
        sleep(millis(30)).await;
        assert!(id % 7 != 2, "no face in photo {id}");
    })
    .name("faces");
    if id % 11 == 3 {
        defer(work(900))
            .name("copyright check")
            .timeout(millis(250));
    }
    StatusCode::ACCEPTED
}

/// Streams a body that takes a while.
async fn report(Path(id): Path<u64>) -> impl IntoResponse {
    sleep(millis(20)).await;
    defer(work(25));
    let rows = stream::iter(0..8).then(move |row| async move {
        sleep(millis(10 + id % 4 * 8)).await;
        Ok::<_, Infallible>(Bytes::from(format!("row {row}\n")))
    });
    Body::from_stream(rows)
}

async fn export() -> StatusCode {
    defer(work(20_000)).name("nightly export");
    defer(work(50)).name("export mail");
    StatusCode::ACCEPTED
}

/// Starts when it is polled, and takes this many milliseconds.
async fn work(duration: u64) {
    sleep(millis(duration)).await;
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

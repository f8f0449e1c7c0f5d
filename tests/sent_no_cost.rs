//! Requests that defer nothing pay nothing at the second level of sent: their frames are not
//! watched.

#![allow(clippy::unwrap_used)]

use axum::{
    Json, Router,
    body::Body,
    extract::Request,
    http::Version,
    middleware::{Next, from_fn},
    routing::{get, post},
};
use axum_defer::{DeferLayer, DeferredCallbackCollection, defer, sent::SentIo};
use http_body_util::BodyExt;
use tower::{Layer, ServiceExt};
use tower_http::trace::TraceLayer;

async fn pass(request: Request, next: Next) -> axum::response::Response {
    next.run(request).await
}

/// Every way to a handler that may keep a piece of the request alive.
fn app() -> Router {
    let routes = Router::new()
        .route("/plain", get(|| async { "plain" }))
        .route(
            "/request",
            get(|request: Request| async move { request.uri().to_string() }),
        )
        .route(
            "/collection",
            get(|deferred: DeferredCallbackCollection| async move {
                assert!(deferred.is_empty());
                "nothing deferred"
            }),
        )
        .route(
            "/json",
            post(|Json(number): Json<u32>| async move { number.to_string() }),
        )
        .route(
            "/defers",
            get(|| async {
                defer(async {});
                "something deferred"
            }),
        )
        .route(
            "/keeps",
            get(|deferred: DeferredCallbackCollection| async move {
                // A task that may still defer something while the response is on its way.
                tokio::spawn(async move {
                    std::future::pending::<()>().await;
                    drop(deferred);
                });
                "may defer something"
            }),
        )
        .layer(from_fn(pass));
    Router::new()
        .nest("/nested", routes.clone())
        .merge(routes)
        .layer(TraceLayer::new_for_http())
        .layer(DeferLayer::new())
        .layer(from_fn(pass))
}

/// What the server gets to see of the first frame of the response.
async fn first_frame(request: axum::http::request::Builder, body: &'static str) -> String {
    let io = SentIo::new(tokio::io::empty());
    let service = io.layer().layer(app());
    let request = request.body(Body::from(body)).unwrap();
    let response = service.oneshot(request).await.unwrap();
    assert!(response.status().is_success());
    let mut body = response.into_body();
    let frame = body.frame().await.unwrap().unwrap();
    format!("{:?}", frame.into_data().unwrap())
}

#[tokio::test]
async fn frames_of_requests_that_defer_nothing_are_not_watched() {
    for version in [Version::HTTP_11, Version::HTTP_2] {
        for prefix in ["", "/nested"] {
            for path in ["/plain", "/request", "/collection"] {
                let request = Request::get(format!("{prefix}{path}")).version(version);
                let frame = first_frame(request, "").await;
                assert!(frame.contains("watched: false"), "{prefix}{path} {frame}");
            }
            let request = Request::post(format!("{prefix}/json"))
                .version(version)
                .header("content-type", "application/json");
            let frame = first_frame(request, "17").await;
            assert!(frame.contains("watched: false"), "{prefix}/json {frame}");
        }
    }
}

#[tokio::test]
async fn frames_of_requests_that_defer_or_may_still_are_watched() {
    for path in ["/defers", "/keeps"] {
        let frame = first_frame(Request::get(path), "").await;
        assert!(frame.contains("watched: true"), "{path} {frame}");
    }
}

//! Requests that defer nothing pay nothing at the second level of sent: their frames are not
//! watched, but for those of an HTTP/2 stream that may yet defer something about them.

#![allow(clippy::unwrap_used)]

use std::{convert::Infallible, task::Poll};

use axum::{
    Json, Router,
    body::Body,
    extract::Request,
    http::Version,
    middleware::{Next, from_fn},
    routing::{get, post},
};
use axum_defer::{
    Completion, DeferLayer, DeferredCallbackCollection, Delivery, defer, sent::SentIo,
};
use futures_util::{StreamExt, stream};
use http_body_util::BodyExt;
use tokio::sync::mpsc;
use tower::{Layer, ServiceExt};
use tower_http::trace::TraceLayer;

async fn pass(request: Request, next: Next) -> axum::response::Response {
    next.run(request).await
}

/// In a task that may still defer something while the response is on its way.
fn keep(deferred: DeferredCallbackCollection) {
    tokio::spawn(async move {
        std::future::pending::<()>().await;
        drop(deferred);
    });
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
                keep(deferred);
                "may defer something"
            }),
        )
        .route(
            "/keeps-and-streams",
            get(|deferred: DeferredCallbackCollection| async move {
                keep(deferred);
                Body::from_stream(stream::iter(
                    ["more than", " one frame"].map(Ok::<_, Infallible>),
                ))
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
    for path in ["/defers", "/keeps", "/keeps-and-streams"] {
        let frame = first_frame(Request::get(path), "").await;
        assert!(frame.contains("watched: true"), "{path} {frame}");
    }
}

/// Yields one frame, and defers what tells the completion when it is polled to its end.
fn stream_that_defers_at_its_end(completions: mpsc::UnboundedSender<Completion>) -> Body {
    let frame = stream::iter([Ok::<_, Infallible>("a frame")]);
    let end = stream::poll_fn(move |_| {
        let completions = completions.clone();
        defer(move |completion: Completion| async move { completions.send(completion) }).always();
        Poll::Ready(None)
    });
    Body::from_stream(frame.chain(end))
}

#[tokio::test]
async fn what_an_http2_stream_defers_at_its_end_hears_that_a_frame_was_thrown_away() {
    let (sender, mut completions) = mpsc::unbounded_channel();
    let app = Router::new()
        .route("/", get(|| async { stream_that_defers_at_its_end(sender) }))
        .layer(DeferLayer::new());
    let io = SentIo::new(tokio::io::empty());
    let request = Request::get("/").version(Version::HTTP_2);
    let request = request.body(Body::empty()).unwrap();
    let service = io.layer().layer(app);
    let mut body = service.oneshot(request).await.unwrap().into_body();

    let frame = body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert!(body.frame().await.is_none());
    drop(body);
    assert!(completions.try_recv().is_err(), "the frame is on its way");
    // As h2 does with what it has not written of a stream that the client resets.
    drop(frame);
    let completion = completions.recv().await.unwrap();
    assert_eq!(completion.delivery(), Delivery::Aborted);
    assert_eq!(completion.body_bytes(), 0);
}

#[tokio::test]
async fn frames_of_a_stream_are_watched_only_over_http2_and_inside_of_a_layer() {
    let streams = || {
        let stream = || async { Body::from_stream(stream::iter([Ok::<_, Infallible>("frame")])) };
        Router::new().route("/", get(stream))
    };
    for (version, app, is_watched) in [
        (Version::HTTP_2, streams().layer(DeferLayer::new()), true),
        (Version::HTTP_2, streams(), false),
        (Version::HTTP_11, streams().layer(DeferLayer::new()), false),
    ] {
        let io = SentIo::new(tokio::io::empty());
        let request = Request::get("/").version(version);
        let request = request.body(Body::empty()).unwrap();
        let response = io.layer().layer(app).oneshot(request).await.unwrap();
        let frame = response.into_body().frame().await.unwrap().unwrap();
        let frame = format!("{:?}", frame.into_data().unwrap());
        let expected = format!("watched: {is_watched}");
        assert!(frame.contains(&expected), "{version:?}: {frame}");
    }
}

//! The grpc-status and the error of the body in a completion.

#![allow(clippy::unwrap_used)]

use std::{
    convert::Infallible,
    fmt, io,
    panic::{AssertUnwindSafe, catch_unwind},
};

use axum::{body::Body, extract::Request, response::Response};
use axum_defer::{Completion, DeferLayer, Delivery, before_response, defer};
use bytes::Bytes;
use futures_util::{FutureExt, stream};
use http::{HeaderMap, HeaderValue, header};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tokio::sync::mpsc;
use tower::{ServiceExt, service_fn};

/// Returns the completion of a request whose client reads the body to its end.
async fn completion_of(layer: DeferLayer, make: fn() -> Response) -> Completion {
    let (sender, mut completions) = mpsc::unbounded_channel();
    let service = layer.layer(service_fn(move |_: Request| {
        let sender = sender.clone();
        defer(move |completion: Completion| async move { sender.send(completion) }).always();
        async move { Ok::<_, Infallible>(make()) }
    }));
    let response = service.oneshot(Request::new(Body::empty())).await.unwrap();
    let read = AssertUnwindSafe(response.into_body().collect());
    // The body may panic.
    let _ = read.catch_unwind().await;
    completions.recv().await.unwrap()
}

fn frames(frames: impl IntoIterator<Item = Frame<Bytes>>) -> Body {
    let frames: Vec<_> = frames.into_iter().map(Ok::<_, Infallible>).collect();
    Body::new(StreamBody::new(stream::iter(frames)))
}

fn data() -> Frame<Bytes> {
    Frame::data(Bytes::from_static(b"hello"))
}

fn trailers(grpc_status: &'static str) -> Frame<Bytes> {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static(grpc_status));
    Frame::trailers(trailers)
}

fn with_header(name: &'static str, value: &'static str, body: Body) -> Response {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(name, HeaderValue::from_static(value));
    response
}

#[tokio::test]
async fn grpc_status_in_headers_is_reported() {
    let answer = || with_header("grpc-status", "5", Body::empty());
    let completion = completion_of(DeferLayer::new_for_grpc(), answer).await;
    assert_eq!(completion.grpc_status(), Some(5));
    assert!(!completion.is_success() && completion.is_complete());
    let completion = completion_of(DeferLayer::new(), answer).await;
    assert_eq!(completion.grpc_status(), Some(5));
    assert!(completion.is_success());
}

#[tokio::test]
async fn grpc_status_in_trailers_is_reported() {
    for layer in [DeferLayer::new_for_grpc(), DeferLayer::new()] {
        let answer = || Response::new(frames([data(), trailers("0")]));
        let completion = completion_of(layer.clone(), answer).await;
        assert_eq!(completion.grpc_status(), Some(0));
        assert!(completion.is_success());
        let answer = || Response::new(frames([data(), trailers("13")]));
        let completion = completion_of(layer, answer).await;
        assert_eq!(completion.grpc_status(), Some(13));
    }
}

#[tokio::test]
async fn missing_grpc_status_is_none() {
    let completion = completion_of(DeferLayer::new(), || Response::new("hello".into())).await;
    assert_eq!(completion.grpc_status(), None);
    let answer = || with_header("grpc-status", "none", frames([data()]));
    let completion = completion_of(DeferLayer::new_for_grpc(), answer).await;
    assert_eq!(completion.grpc_status(), None);
}

#[tokio::test]
async fn grpc_status_of_failed_before_response_is_14() {
    let answer = || {
        before_response(async { Err("no queue") });
        Response::new(frames([trailers("0")]))
    };
    let completion = completion_of(DeferLayer::new_for_grpc(), answer).await;
    assert_eq!(completion.grpc_status(), Some(14));
    assert!(!completion.is_success());
}

#[tokio::test]
async fn body_error_text_is_one_line() {
    let answer = || {
        let error = io::Error::other("disk\nfull");
        let frames = [Ok(data()), Err(error)];
        Response::new(Body::new(StreamBody::new(stream::iter(frames))))
    };
    let completion = completion_of(DeferLayer::new(), answer).await;
    assert_eq!(completion.delivery(), Delivery::BodyError);
    assert_eq!(completion.body_error(), Some(r"disk\nfull"));
    assert!(!completion.is_body_finished());
}

#[tokio::test]
async fn body_error_text_is_bounded() {
    let answer = || {
        let frames = [Err::<Bytes, _>("x".repeat(1_000_000))];
        Response::new(Body::from_stream(stream::iter(frames)))
    };
    let completion = completion_of(DeferLayer::new(), answer).await;
    assert!(completion.body_error().unwrap().len() < 5_000);
}

#[tokio::test]
async fn body_panic_is_body_error() {
    let answer = || {
        let frames = stream::poll_fn(|_| -> std::task::Poll<Option<Result<Bytes, Infallible>>> {
            panic!("planned: no disk")
        });
        Response::new(Body::from_stream(frames))
    };
    let completion = completion_of(DeferLayer::new(), answer).await;
    assert_eq!(completion.delivery(), Delivery::BodyError);
    assert_eq!(completion.body_error(), Some("planned: no disk"));
}

#[tokio::test]
async fn short_body_has_error_text() {
    let answer = || with_header(header::CONTENT_LENGTH.as_str(), "6", frames([data()]));
    let completion = completion_of(DeferLayer::new(), answer).await;
    assert_eq!(completion.delivery(), Delivery::BodyError);
    assert!(completion.body_error().unwrap().contains("length"));
}

#[tokio::test]
async fn panic_in_error_text_is_caught() {
    struct Broken;
    impl fmt::Display for Broken {
        fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
            panic!("planned: in the text");
        }
    }
    let service = DeferLayer::new().layer(service_fn(|_: Request| async {
        let frames = [Err::<Frame<Bytes>, _>(Broken)];
        Ok::<_, Infallible>(Response::new(StreamBody::new(stream::iter(frames))))
    }));
    let response = service.oneshot(Request::new(Body::empty())).await.unwrap();
    let mut body = response.into_body();
    let frame = catch_unwind(AssertUnwindSafe(|| body.frame().now_or_never()));
    assert!(matches!(frame, Ok(Some(Some(Err(Broken))))));
}

#[tokio::test]
async fn complete_body_has_no_error_text() {
    let completion = completion_of(DeferLayer::new(), || Response::new("hello".into())).await;
    assert_eq!(completion.body_error(), None);
    assert!(completion.is_body_finished());
}

//! What the scope drops, it drops inside of itself: a destructor may still defer.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    convert::Infallible,
    future::{Future, pending},
    pin::Pin,
    task::{Context, Poll, Waker},
};

use axum::{Router, body::Body, extract::Request, response::Response, routing::get};
use axum_defer::{
    Completion, DeferLayer,
    Delivery::{self, Aborted, NoResponse},
    defer,
};
use bytes::Bytes;
use http_body::{Body as _, Frame};
use http_body_util::StreamBody;
use tokio::sync::mpsc;
use tower::{Service, service_fn};

use crate::support::{self, Server, in_time, planned_panics};

type Told = mpsc::UnboundedReceiver<(&'static str, Delivery)>;

/// Defers something when it is dropped.
struct CleansUp(mpsc::UnboundedSender<(&'static str, Delivery)>);

impl CleansUp {
    fn new() -> (Self, Told) {
        let (sender, told) = mpsc::unbounded_channel();
        (Self(sender), told)
    }
}

impl Drop for CleansUp {
    fn drop(&mut self) {
        for (name, always) in [("always", true), ("by the rule", false)] {
            let sender = self.0.clone();
            let handle = defer(move |completion: Completion| async move {
                let _ = sender.send((name, completion.delivery()));
            });
            if always {
                handle.always();
            }
        }
    }
}

fn poll_once(future: Pin<&mut impl Future>) {
    let polled = future.poll(&mut Context::from_waker(Waker::noop()));
    assert!(polled.is_pending());
}

async fn all(layer: &DeferLayer, told: &mut Told) -> Vec<(&'static str, Delivery)> {
    in_time(layer.handle().wait_idle()).await;
    std::iter::from_fn(|| told.try_recv().ok()).collect()
}

#[tokio::test]
async fn of_a_handler_that_is_dropped() {
    let (cleans_up, mut told) = CleansUp::new();
    let layer = DeferLayer::new();
    let mut cleans_up = Some(cleans_up);
    let mut service = layer.layer(service_fn(move |_: Request| {
        let cleans_up = cleans_up.take();
        async move {
            let _cleans_up = cleans_up;
            pending::<Result<Response, Infallible>>().await
        }
    }));
    let mut response = Box::pin(service.call(Request::default()));
    poll_once(response.as_mut());
    drop(response);
    assert_eq!(all(&layer, &mut told).await, [("always", NoResponse)]);
}

#[tokio::test]
async fn of_a_handler_that_was_never_polled() {
    let (cleans_up, mut told) = CleansUp::new();
    let layer = DeferLayer::new();
    let mut cleans_up = Some(cleans_up);
    let mut service = layer.layer(service_fn(move |_: Request| {
        let cleans_up = cleans_up.take();
        async move {
            let _cleans_up = cleans_up;
            Ok::<_, Infallible>(Response::new(Body::empty()))
        }
    }));
    drop(service.call(Request::default()));
    assert_eq!(all(&layer, &mut told).await, [("always", NoResponse)]);
}

#[tokio::test]
async fn of_a_handler_whose_client_goes_away() {
    let (cleans_up, mut told) = CleansUp::new();
    let layer = DeferLayer::new();
    let cleans_up = std::sync::Arc::new(std::sync::Mutex::new(Some(cleans_up)));
    let (entered, mut has_entered) = mpsc::unbounded_channel();
    let app: Router = Router::new()
        .route(
            "/",
            get(move || async move {
                let _cleans_up = cleans_up.lock().unwrap().take();
                entered.send(()).unwrap();
                pending::<()>().await;
            }),
        )
        .layer(layer.clone());
    let server = Server::start(app).await;
    let mut client = server.http1().await;
    let request = tokio::spawn(async move { client.send_request(support::get("/")).await });
    in_time(has_entered.recv()).await.unwrap();
    request.abort();
    let always = in_time(told.recv()).await.unwrap();
    assert_eq!(always, ("always", NoResponse));
    assert_eq!(all(&layer, &mut told).await, []);
}

/// A stream that goes on, and holds something.
fn endless(cleans_up: CleansUp) -> Body {
    let frame = || Frame::data(Bytes::from_static(b"hello"));
    let frames = futures_util::stream::unfold(cleans_up, move |cleans_up| async move {
        Some((Ok::<_, Infallible>(frame()), cleans_up))
    });
    Body::new(StreamBody::new(frames))
}

#[tokio::test]
async fn of_a_body_that_is_dropped_in_mid_stream() {
    let (cleans_up, mut told) = CleansUp::new();
    let layer = DeferLayer::new();
    let mut body = Some(endless(cleans_up));
    let mut service = layer.layer(service_fn(move |_: Request| {
        let body = body.take().unwrap();
        async move { Ok::<_, Infallible>(Response::new(body)) }
    }));
    let response = service.call(Request::default()).await.unwrap();
    let mut body = Box::pin(response.into_body());
    let polled = body
        .as_mut()
        .poll_frame(&mut Context::from_waker(Waker::noop()));
    assert!(matches!(polled, Poll::Ready(Some(Ok(_)))));
    drop(body);
    // The status was a success, so both run.
    assert_eq!(
        all(&layer, &mut told).await,
        [("always", Aborted), ("by the rule", Aborted)]
    );
}

#[tokio::test]
async fn of_a_scope_that_is_dropped() {
    let (cleans_up, mut told) = CleansUp::new();
    let layer = DeferLayer::new();
    let mut unit = Box::pin(layer.scope(async move {
        let _cleans_up = cleans_up;
        pending::<()>().await;
    }));
    poll_once(unit.as_mut());
    drop(unit);
    assert_eq!(all(&layer, &mut told).await, [("always", NoResponse)]);
}

#[tokio::test]
async fn of_what_runs_inline() {
    let (cleans_up, mut told) = CleansUp::new();
    let layer = DeferLayer::new();
    let mut cleans_up = Some(cleans_up);
    #[cfg(feature = "testing")]
    let layer = layer.inline();
    let mut service = layer.layer(service_fn(move |_: Request| {
        let cleans_up = cleans_up.take();
        async move {
            let _cleans_up = cleans_up;
            pending::<Result<Response, Infallible>>().await
        }
    }));
    let mut response = Box::pin(service.call(Request::default()));
    poll_once(response.as_mut());
    drop(response);
    assert_eq!(all(&layer, &mut told).await, [("always", NoResponse)]);
}

/// Of what a callback captured, which goes when that has run: it may defer, or panic, and neither is
/// in the way of the next one. Nobody is told of any of it, and nobody can ask.
#[tokio::test]
async fn of_a_callback_of_which_nobody_is_told() {
    struct Panics;
    impl Drop for Panics {
        fn drop(&mut self) {
            std::panic::panic_any(String::from(planned_panics::PLANNED));
        }
    }

    planned_panics::silence_planned_panics();
    let (cleans_up, mut told) = CleansUp::new();
    let (ran, mut has_run) = mpsc::unbounded_channel();
    let mut captured = Some((cleans_up, ran));
    let mut service = DeferLayer::new().layer(service_fn(move |_: Request| {
        let (cleans_up, ran) = captured.take().unwrap();
        async move {
            let panics = Panics;
            defer(async move {
                let _panics = &panics;
                drop(cleans_up);
            });
            defer(async move { ran.send(()).unwrap() });
            Ok::<_, Infallible>(Response::new(Body::empty()))
        }
    }));
    drop(service.call(Request::default()).await);
    drop(service);
    in_time(has_run.recv()).await.unwrap();
    for name in ["always", "by the rule"] {
        assert_eq!(
            in_time(told.recv()).await.unwrap(),
            (name, Delivery::Complete)
        );
    }
}

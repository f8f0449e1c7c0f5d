//! `Debug` of what users hold in their hands: the type, and of what is in it as much as helps.
#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{convert::Infallible, fmt::Debug, time::Duration};

use axum::{Router, body::Body};
use axum_defer::{
    CallbackFuture, DeferLayer, DeferredCallbackCollection, defer,
    sent::{SentIo, SentListener},
    serve,
    testing::Recorder,
    try_defer,
};
use http::{Request, Response};
use http_body_util::BodyExt;
use tokio::net::TcpListener;
use tower::{Layer, Service, service_fn};

const SECOND: Duration = Duration::from_secs(1);

fn shown(value: impl Debug) -> String {
    format!("{value:?}")
}

/// A service that can be shown.
#[derive(Clone, Debug)]
struct Hello;

impl Service<Request<Body>> for Hello {
    type Response = Response<String>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Response<String>, Infallible>>;

    fn poll_ready(
        &mut self,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), Infallible>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<Body>) -> Self::Future {
        defer(async {}).name("mail");
        std::future::ready(Ok(Response::new("hello".to_owned())))
    }
}

#[tokio::test]
async fn layer_shows_settings_and_pending() {
    let layer = DeferLayer::new()
        .timeout(SECOND)
        .concurrent()
        .max_pending(7);
    assert_eq!(
        shown(&layer),
        "DeferLayer { timeout: Some(1s), concurrent: true, max_pending: Some(7), \
         pending: 0, running: 0, .. }"
    );
    let handle = layer.handle();
    let inside = handle.clone();
    layer
        .scope(async move {
            defer(async {});
            assert_eq!(shown(inside), "DeferHandle { pending: 1, running: 0 }");
        })
        .await;
    assert_eq!(shown(handle), "DeferHandle { pending: 0, running: 0 }");
}

/// In a binary without subscribers, because these keep times, too.
#[tokio::test]
async fn without_handle_no_times_are_kept() {
    let layer = DeferLayer::new();
    let later = layer.clone();
    // Neither of these observes the callbacks of later scopes.
    assert!(!shown((&layer, layer.layer(Hello))).is_empty());
    drop(layer.handle());
    layer
        .scope(async move {
            assert!(!shown(&later).is_empty());
            defer(async {});
            let snapshot = later.handle().snapshot();
            assert_eq!(snapshot.len(), 1);
            assert_eq!(snapshot[0].age(), None);
        })
        .await;
}

#[tokio::test]
async fn callbacks_show_names_and_no_code() {
    let layer = DeferLayer::new().wrap(|callback: CallbackFuture| {
        assert_eq!(shown(&callback), "CallbackFuture { .. }");
        callback
    });
    layer
        .scope(async {
            let deferred = DeferredCallbackCollection::current().unwrap();
            let callback = defer(async {}).name("mail");
            assert!(shown(&callback).starts_with("DeferredCallback { id: "));
            assert_eq!(
                shown(deferred),
                r#"DeferredCallbackCollection { len: 1, names: ["mail"] }"#
            );
        })
        .await;
    let outside = try_defer(async {}).unwrap_err();
    assert_eq!(shown(outside), "NoScopeError { .. }");
}

#[tokio::test]
async fn recorder_shows_its_records() {
    let recorder = Recorder::new();
    let layer = DeferLayer::new().observer(recorder.clone());
    layer
        .scope(async { drop(defer(async {}).name("mail")) })
        .await;
    let of_the_recorder = shown(recorder);
    let last = r#"phase: After, event: Succeeded }] }"#;
    assert!(of_the_recorder.starts_with("Recorder { events: ["));
    assert!(of_the_recorder.ends_with(last), "{of_the_recorder}");
}

#[tokio::test]
async fn services_and_bodies_show_inner_values() {
    let layer = DeferLayer::new();
    let mut service = layer.layer(Hello);
    assert_eq!(shown(&service), "Defer { inner: Hello, .. }");
    assert_eq!(
        shown(layer.run_to_completion().layer(Hello)),
        "Defer { inner: Hello, .. }"
    );
    let response = service.call(Request::new(Body::empty()));
    assert_eq!(shown(&response), "ResponseFuture { .. }");
    let mut body = response.await.unwrap().into_body();
    assert_eq!(
        shown(&body),
        r#"ResponseBody { inner: "hello", has_ended: false }"#
    );
    body.frame().await.unwrap().unwrap();
    assert!(shown(&body).ends_with("has_ended: true }"));
}

#[tokio::test]
async fn connection_parts_show_inner_values() {
    let io = SentIo::new("a transport");
    assert_eq!(shown(&io), r#"SentIo { io: "a transport", .. }"#);
    let layer = io.layer();
    assert_eq!(shown(&layer), "SentLayer { .. }");
    assert_eq!(shown(layer.layer(Hello)), "Sent { inner: Hello, .. }");
    let mut service = layer.layer(service_fn(async |_: Request<Body>| {
        Ok::<_, Infallible>(Response::new("hello".to_owned()))
    }));
    let response = service.call(Request::new(Body::empty()));
    assert_eq!(shown(&response), "SentFuture { .. }");
    let mut body = response.await.unwrap().into_body();
    let of_the_body = shown(&body);
    assert!(of_the_body.contains(r#"inner: "hello""#), "{of_the_body}");
    assert!(
        of_the_body
            .contains("ResponseDelivery { ended: None, unconsumed: 0, bytes: 0, outcome: None"),
        "{of_the_body}"
    );
    let frame = body.frame().await.unwrap().unwrap();
    assert_eq!(
        shown(frame.into_data().unwrap()),
        "SentBuf { remaining: 5, watched: false }"
    );
}

#[tokio::test]
async fn server_shows_listener_and_deadlines() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let of_the_listener = shown(&listener);
    let listener = SentListener::new(listener);
    assert_eq!(
        shown(listener),
        format!("SentListener {{ listener: {of_the_listener}, .. }}")
    );
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let of_the_listener = shown(&listener);
    let server = serve(listener, Router::new());
    assert_eq!(
        shown(&server),
        format!("Serve {{ listener: {of_the_listener}, .. }}")
    );
    let server = server
        .with_graceful_shutdown(std::future::ready(()))
        .connection_timeout(SECOND);
    assert_eq!(
        shown(&server),
        format!(
            "WithGracefulShutdown {{ listener: {of_the_listener}, drain_timeout: 30s, \
             connection_timeout: Some(1s), .. }}"
        )
    );
    assert_eq!(shown(server.into_future()), "ServeFuture { .. }");
}

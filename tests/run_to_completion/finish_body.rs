//! `finish_body(limit)`: a body is produced to its end after its client has left.

#![allow(clippy::unwrap_used)]

use std::{convert::Infallible, io, time::Duration};

use axum::{Router, body::Body, extract::Request, response::Response, routing::get};
use axum_defer::{Completion, DeferLayer, Delivery, defer, serve};
use bytes::Bytes;
use futures_util::{FutureExt, stream};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use hyper::client::conn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::mpsc::{self, UnboundedReceiver, UnboundedSender},
    task::JoinHandle,
};
use tower::ServiceExt;

use crate::support::{
    get as request, in_time,
    serving::{LONG, Serving, in_memory, settle},
};

const LIMIT: Duration = Duration::from_secs(30);

type Sent = Result<Frame<Bytes>, io::Error>;

/// An app whose bodies are what the test sends, and their completions.
struct Streams {
    app: Router,
    bodies: UnboundedReceiver<UnboundedSender<Sent>>,
    completions: UnboundedReceiver<Completion>,
}

impl Streams {
    fn new(layer: DeferLayer) -> Self {
        let (sender, completions) = mpsc::unbounded_channel();
        let (begins, bodies) = mpsc::unbounded_channel();
        let handler = move || async move {
            defer(move |completion: Completion| async move { sender.send(completion) }).always();
            let (frames, mut to_send) = mpsc::unbounded_channel::<Sent>();
            begins.send(frames).unwrap();
            let frames = stream::poll_fn(move |cx| to_send.poll_recv(cx));
            Response::new(Body::new(StreamBody::new(frames)))
        };
        Self {
            app: Router::new().route("/", get(handler)).layer(layer),
            bodies,
            completions,
        }
    }

    /// Sends a request, and returns the body of its response and its frames.
    async fn request(&mut self) -> (Body, UnboundedSender<Sent>) {
        let request = Request::new(Body::empty());
        let response = self.app.clone().oneshot(request).await.unwrap();
        (response.into_body(), self.bodies.recv().await.unwrap())
    }

    async fn completion(&mut self) -> Completion {
        in_time(self.completions.recv()).await.unwrap()
    }

    async fn assert_undecided(&mut self) {
        settle().await;
        assert!(self.completions.try_recv().is_err());
    }
}

fn data() -> Sent {
    Ok(Frame::data(Bytes::from_static(b"token")))
}

fn layer() -> DeferLayer {
    DeferLayer::new().finish_body(LIMIT)
}

#[track_caller]
fn assert_finished(completion: &Completion) {
    assert!(completion.is_body_finished() && completion.is_success());
    assert_eq!(completion.delivery(), Delivery::Aborted);
    assert_eq!(completion.body_error(), None);
}

#[tokio::test(start_paused = true)]
async fn abandoned_body_is_produced_to_its_end() {
    let mut streams = Streams::new(layer());
    let (mut body, frames) = streams.request().await;
    frames.send(data()).unwrap();
    body.frame().await.unwrap().unwrap();
    drop(body);
    streams.assert_undecided().await;
    frames.send(data()).unwrap();
    streams.assert_undecided().await;
    drop(frames);
    let completion = streams.completion().await;
    assert_finished(&completion);
    assert_eq!(completion.body_bytes(), 5, "discarded frames do not count");
}

#[tokio::test(start_paused = true)]
async fn abandoned_body_ends_at_limit() {
    let mut streams = Streams::new(layer());
    let (body, frames) = streams.request().await;
    let begun = tokio::time::Instant::now();
    drop(body);
    let completion = streams.completion().await;
    assert!(begun.elapsed() >= LIMIT);
    assert!(!completion.is_body_finished() && completion.is_success());
    assert_eq!(completion.delivery(), Delivery::Aborted);
    assert!(frames.is_closed(), "the body was dropped");
}

#[tokio::test(start_paused = true)]
async fn body_that_never_waits_ends_at_limit() {
    let (sender, mut completions) = mpsc::unbounded_channel();
    let handler = || async move {
        defer(move |completion: Completion| async move { sender.send(completion) });
        Body::from_stream(stream::repeat_with(|| Ok::<_, Infallible>(Bytes::new())))
    };
    let app = Router::new().route("/", get(handler)).layer(layer());
    drop(app.oneshot(Request::new(Body::empty())).await.unwrap());
    settle().await;
    tokio::time::advance(LIMIT).await;
    let completion = completions.recv().await.unwrap();
    assert!(!completion.is_body_finished());
}

#[tokio::test]
async fn body_that_is_read_is_polled_by_its_client() {
    let mut streams = Streams::new(layer());
    let (body, frames) = streams.request().await;
    drop(frames);
    streams.assert_undecided().await;
    body.collect().await.unwrap();
    let completion = streams.completion().await;
    assert!(completion.is_complete() && completion.is_body_finished());
}

#[tokio::test(start_paused = true)]
async fn drain_waits_for_abandoned_body() {
    let (begins, mut bodies) = mpsc::unbounded_channel();
    let (sender, mut ran) = mpsc::unbounded_channel();
    let handler = || async move {
        let (frames, mut to_send) = mpsc::unbounded_channel::<Sent>();
        begins.send(frames).unwrap();
        // Nothing is deferred until the stream ends.
        let mut sender = Some(sender);
        let frames = stream::poll_fn(move |cx| {
            let frame = std::task::ready!(to_send.poll_recv(cx));
            if let (None, Some(sender)) = (&frame, sender.take()) {
                defer(move |completion: Completion| async move { sender.send(completion) });
            }
            std::task::Poll::Ready(frame)
        });
        Body::new(StreamBody::new(frames))
    };
    let layer = layer();
    let deferred = layer.handle();
    let app = Router::new().route("/", get(handler)).layer(layer);
    drop(app.oneshot(Request::new(Body::empty())).await.unwrap());
    let frames = bodies.recv().await.unwrap();
    let mut drain = Box::pin(deferred.drain(LONG));
    assert!(drain.as_mut().now_or_never().is_none());
    settle().await;
    assert!(drain.as_mut().now_or_never().is_none());
    drop(frames);
    assert!(drain.await.is_complete());
    assert_finished(&ran.recv().await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn drain_reports_abandoned_body_as_handler() {
    let layer = layer();
    let deferred = layer.handle();
    let mut streams = Streams::new(layer);
    let (body, _frames) = streams.request().await;
    drop(body);
    let report = deferred.drain(LIMIT / 2).await;
    assert_eq!(report.running_handlers, 1);
}

#[tokio::test(start_paused = true)]
async fn client_that_leaves_before_head_finishes_body() {
    let layer = layer();
    let deferred = layer.handle();
    let mut streams = Streams::new(layer);
    let request = Request::new(Body::empty());
    let mut response = Box::pin(streams.app.clone().oneshot(request));
    assert!(response.as_mut().now_or_never().is_none());
    drop(response);
    let frames = in_time(streams.bodies.recv()).await.unwrap();
    let mut drain = Box::pin(deferred.drain(LONG));
    settle().await;
    assert!(drain.as_mut().now_or_never().is_none());
    frames.send(data()).unwrap();
    drop(frames);
    let completion = streams.completion().await;
    assert_finished(&completion);
    assert_eq!(completion.status(), Some(StatusCode::OK));
    drain.await;
}

#[tokio::test]
async fn error_of_abandoned_body_is_reported() {
    let mut streams = Streams::new(layer());
    let (body, frames) = streams.request().await;
    drop(body);
    frames.send(Err(io::Error::other("no model"))).unwrap();
    let completion = streams.completion().await;
    assert_eq!(completion.delivery(), Delivery::Aborted);
    assert_eq!(completion.body_error(), Some("no model"));
    assert!(!completion.is_body_finished());
}

#[tokio::test]
async fn panic_of_abandoned_body_is_reported() {
    let (sender, mut completions) = mpsc::unbounded_channel();
    let handler = || async move {
        defer(move |completion: Completion| async move { sender.send(completion) }).always();
        Body::from_stream(stream::poll_fn(
            |_| -> std::task::Poll<Option<Result<Bytes, Infallible>>> {
                panic!("planned: no model")
            },
        ))
    };
    let app = Router::new().route("/", get(handler)).layer(layer());
    drop(app.oneshot(Request::new(Body::empty())).await.unwrap());
    let completion = in_time(completions.recv()).await.unwrap();
    assert_eq!(completion.delivery(), Delivery::Aborted);
    assert_eq!(completion.body_error(), Some("planned: no model"));
}

#[tokio::test]
async fn trailers_of_abandoned_body_decide_success() {
    for (code, succeeds) in [("0", true), ("13", false)] {
        let layer = DeferLayer::new_for_grpc().finish_body(LIMIT);
        let mut streams = Streams::new(layer);
        let (body, frames) = streams.request().await;
        drop(body);
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static(code));
        frames.send(Ok(Frame::trailers(trailers))).unwrap();
        let completion = streams.completion().await;
        assert_eq!(completion.is_success(), succeeds);
        assert_eq!(completion.grpc_status(), Some(code.parse().unwrap()));
        assert!(completion.is_body_finished());
        assert_eq!(completion.delivery(), Delivery::Aborted);
    }
}

#[tokio::test]
async fn body_of_head_request_is_not_driven() {
    let mut streams = Streams::new(layer());
    let mut request = Request::new(Body::empty());
    *request.method_mut() = Method::HEAD;
    drop(streams.app.clone().oneshot(request).await.unwrap());
    let completion = streams.completion().await;
    assert!(completion.is_complete() && completion.is_body_finished());
}

#[tokio::test]
async fn body_without_option_ends_with_its_client() {
    let mut streams = Streams::new(DeferLayer::new().run_to_completion());
    let (body, _frames) = streams.request().await;
    drop(body);
    let completion = streams.completion().await;
    assert_eq!(completion.delivery(), Delivery::Aborted);
    assert!(!completion.is_body_finished());
}

/// Sends a request over a connection in memory. Aborting the task closes the connection.
async fn connect(io: tokio::io::DuplexStream, http2: bool) -> (hyper::body::Incoming, Abort) {
    let request = request::<http_body_util::Full<Bytes>>("/");
    let io = TokioIo::new(io);
    if http2 {
        let handshake = conn::http2::handshake(TokioExecutor::new(), io);
        let (mut client, connection) = handshake.await.unwrap();
        let connection = tokio::spawn(async move { drop(connection.await) });
        let response = in_time(client.send_request(request)).await.unwrap();
        (response.into_body(), Abort(connection))
    } else {
        let (mut client, connection) = conn::http1::handshake(io).await.unwrap();
        let connection = tokio::spawn(async move { drop(connection.await) });
        let response = in_time(client.send_request(request)).await.unwrap();
        (response.into_body(), Abort(connection))
    }
}

struct Abort(JoinHandle<()>);

impl Drop for Abort {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[tokio::test]
async fn served_body_is_finished_after_disconnect() {
    for http2 in [false, true] {
        let mut streams = Streams::new(layer());
        let (connector, listener) = in_memory();
        tokio::spawn(serve(listener, streams.app.clone()).into_future());
        let (mut body, connection) = connect(connector.connect(), http2).await;
        let frames = in_time(streams.bodies.recv()).await.unwrap();
        frames.send(data()).unwrap();
        in_time(body.frame()).await.unwrap().unwrap();
        drop((body, connection));
        streams.assert_undecided().await;
        frames.send(data()).unwrap();
        drop(frames);
        let completion = streams.completion().await;
        assert_finished(&completion);
        assert_eq!(completion.body_bytes(), 5);
    }
}

#[tokio::test]
async fn served_body_is_finished_after_stream_reset() {
    let mut streams = Streams::new(layer());
    let (connector, listener) = in_memory();
    tokio::spawn(serve(listener, streams.app.clone()).into_future());
    let (mut body, _connection) = connect(connector.connect(), true).await;
    let frames = in_time(streams.bodies.recv()).await.unwrap();
    frames.send(data()).unwrap();
    in_time(body.frame()).await.unwrap().unwrap();
    drop(body);
    streams.assert_undecided().await;
    drop(frames);
    assert_finished(&streams.completion().await);
}

#[tokio::test(start_paused = true)]
async fn served_body_is_finished_after_stall() {
    let layer = DeferLayer::new().finish_body(LONG);
    let mut streams = Streams::new(layer);
    let (connector, listener) = in_memory();
    let server = serve(listener, streams.app.clone()).stall_timeout(LIMIT);
    tokio::spawn(server.into_future());
    let mut client = connector.connect_over(64);
    client
        .write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        .await
        .unwrap();
    let frames = in_time(streams.bodies.recv()).await.unwrap();
    let large = Bytes::from(vec![b'x'; 1_000_000]);
    frames.send(Ok(Frame::data(large))).unwrap();
    // The client reads nothing, and the server closes the connection.
    tokio::time::sleep(LIMIT * 2).await;
    let mut received = Vec::new();
    let _ = client.read_to_end(&mut received).await;
    streams.assert_undecided().await;
    drop(frames);
    assert_finished(&streams.completion().await);
}

#[tokio::test(start_paused = true)]
async fn shutdown_waits_for_abandoned_body() {
    let mut streams = Streams::new(layer());
    let (server, connector) = Serving::in_memory(streams.app.clone(), LONG);
    let (body, connection) = connect(connector.connect(), false).await;
    let frames = in_time(streams.bodies.recv()).await.unwrap();
    drop((body, connection));
    settle().await;
    let mut report = server.stop();
    settle().await;
    assert!((&mut report).now_or_never().is_none());
    drop(frames);
    let report = in_time(report).await.unwrap();
    assert_eq!(report.running_handlers, 0);
    assert_finished(&streams.completion().await);
}

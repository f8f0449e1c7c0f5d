//! `run_to_completion()`: a client that goes away does not cut its handler off.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Request, State},
    http::{Response, StatusCode},
    middleware::{self, Next},
    routing::{any, get, post},
};
use axum_defer::{Completion, DeferHandle, DeferLayer, Delivery, DrainReport, defer};
use futures_util::{SinkExt, StreamExt};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::{Semaphore, mpsc, oneshot},
    task::JoinHandle,
};
use tower::{Layer, ServiceExt, service_fn};
use tower_http::{catch_panic::CatchPanicLayer, trace::TraceLayer};

use crate::support::{events::Events, in_time, listen, subscriber, until_refused, websocket};

const CLIENTS: usize = 50;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Server {
    Axum,
    AxumDefer,
}

const SERVERS: [Server; 2] = [Server::Axum, Server::AxumDefer];

/// A server on a free port.
struct Served {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Option<DrainReport>>,
}

impl Served {
    async fn start(server: Server, app: Router) -> Self {
        let (listener, address) = listen().await;
        let (stop, stopped) = oneshot::channel();
        let signal = async move { drop(stopped.await) };
        let task = tokio::spawn(async move {
            match server {
                Server::Axum => {
                    let served = axum::serve(listener, app).with_graceful_shutdown(signal);
                    served.await.unwrap();
                    None
                }
                Server::AxumDefer => {
                    let served = axum_defer::serve(listener, app).with_graceful_shutdown(signal);
                    Some(served.await.unwrap())
                }
            }
        });
        Self {
            address,
            stop,
            task,
        }
    }

    async fn stop(self) -> Option<DrainReport> {
        self.stop.send(()).unwrap();
        in_time(self.task).await.unwrap()
    }
}

/// What the test and its handlers share.
#[derive(Clone)]
struct Shared {
    entered: mpsc::UnboundedSender<()>,
    gate: Arc<Semaphore>,
    finished: Arc<AtomicUsize>,
    completions: Arc<Mutex<Vec<(&'static str, Completion)>>>,
    /// Told when the server drops a response future that was not ready.
    dropped: mpsc::UnboundedSender<()>,
}

struct Told {
    entered: mpsc::UnboundedReceiver<()>,
    dropped: mpsc::UnboundedReceiver<()>,
}

impl Shared {
    fn new() -> (Self, Told) {
        let (entered, has_entered) = mpsc::unbounded_channel();
        let (dropped, was_dropped) = mpsc::unbounded_channel();
        let shared = Self {
            entered,
            gate: Arc::new(Semaphore::new(0)),
            finished: Arc::default(),
            completions: Arc::default(),
            dropped,
        };
        let told = Told {
            entered: has_entered,
            dropped: was_dropped,
        };
        (shared, told)
    }

    fn defer_both(&self) {
        let completions = self.completions.clone();
        defer(|completion: Completion| async move {
            completions.lock().unwrap().push(("by status", completion));
        });
        let completions = self.completions.clone();
        defer(|completion: Completion| async move {
            completions.lock().unwrap().push(("always", completion));
        })
        .always();
    }

    fn completions(&self, of: &str) -> Vec<Completion> {
        let completions = self.completions.lock().unwrap();
        let of_these = completions.iter().filter(|(name, _)| *name == of);
        of_these.map(|(_, completion)| completion.clone()).collect()
    }

    async fn work(&self) {
        self.defer_both();
        self.entered.send(()).unwrap();
        self.gate.acquire().await.unwrap().forget();
        self.finished.fetch_add(1, SeqCst);
    }
}

async fn with_body(State(shared): State<Shared>) -> &'static str {
    shared.work().await;
    "hello"
}

async fn without_body(State(shared): State<Shared>) -> StatusCode {
    shared.work().await;
    StatusCode::OK
}

async fn failing(State(shared): State<Shared>) -> StatusCode {
    shared.work().await;
    StatusCode::INTERNAL_SERVER_ERROR
}

/// Sees the server give up a request.
async fn notice(
    State(shared): State<Shared>,
    request: Request,
    next: Next,
) -> axum::response::Response {
    struct Unanswered(Option<mpsc::UnboundedSender<()>>);
    impl Drop for Unanswered {
        fn drop(&mut self) {
            if let Some(dropped) = self.0.take() {
                // The test may be over.
                let _ = dropped.send(());
            }
        }
    }
    let mut unanswered = Unanswered(Some(shared.dropped));
    let response = next.run(request).await;
    unanswered.0 = None;
    response
}

fn app<L>(shared: &Shared, layer: L) -> Router
where
    L: Layer<axum::routing::Route> + Clone + Send + Sync + 'static,
    L::Service: tower::Service<
            Request,
            Error = Infallible,
            Response: axum::response::IntoResponse,
            Future: Send,
        > + Clone
        + Send
        + Sync
        + 'static,
{
    Router::new()
        .route("/", get(with_body))
        .route("/empty", get(without_body))
        .route("/failing", get(failing))
        .layer(layer)
        .layer(middleware::from_fn_with_state(shared.clone(), notice))
        .with_state(shared.clone())
}

/// Sends requests, waits until their handlers are at work, and breaks the connections.
async fn reset_all(address: SocketAddr, path: &str, told: &mut Told) {
    let mut streams = Vec::new();
    for _ in 0..CLIENTS {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let head = format!("GET {path} HTTP/1.1\r\nhost: here\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        streams.push(stream);
    }
    for _ in 0..CLIENTS {
        in_time(told.entered.recv()).await.unwrap();
    }
    for stream in &streams {
        SockRef::from(stream)
            .set_linger(Some(Duration::ZERO))
            .unwrap();
    }
    drop(streams);
    for _ in 0..CLIENTS {
        in_time(told.dropped.recv()).await.unwrap();
    }
}

#[tokio::test]
async fn handler_finishes_after_reset() {
    for server in SERVERS {
        for path in ["/", "/empty", "/failing"] {
            let (shared, mut told) = Shared::new();
            let layer = DeferLayer::new().run_to_completion();
            let handle = layer.handle();
            let served = Served::start(server, app(&shared, layer)).await;
            reset_all(served.address, path, &mut told).await;
            assert_eq!(shared.finished.load(SeqCst), 0);
            shared.gate.add_permits(CLIENTS);
            in_time(handle.wait_idle()).await;

            assert_eq!(shared.finished.load(SeqCst), CLIENTS, "{server:?} {path}");
            let by_status = if path == "/failing" { 0 } else { CLIENTS };
            assert_eq!(shared.completions("by status").len(), by_status);
            let always = shared.completions("always");
            assert_eq!(always.len(), CLIENTS);
            for completion in always {
                assert_eq!(
                    completion.delivery(),
                    Delivery::Aborted,
                    "{server:?} {path}"
                );
                assert_eq!(completion.is_success(), path != "/failing");
                assert!(completion.status().is_some());
                assert_eq!(completion.body_bytes(), 0);
            }
            served.stop().await;
        }
    }
}

#[tokio::test]
async fn handler_is_dropped_by_default() {
    for server in SERVERS {
        let (shared, mut told) = Shared::new();
        let layer = DeferLayer::new();
        let handle = layer.handle();
        let served = Served::start(server, app(&shared, layer)).await;
        reset_all(served.address, "/", &mut told).await;
        shared.gate.add_permits(CLIENTS);
        in_time(handle.wait_idle()).await;

        assert_eq!(shared.finished.load(SeqCst), 0, "{server:?}");
        assert!(shared.completions("by status").is_empty());
        let always = shared.completions("always");
        assert_eq!(always.len(), CLIENTS);
        for completion in always {
            assert_eq!(completion.delivery(), Delivery::NoResponse);
            assert_eq!(completion.status(), None);
        }
        served.stop().await;
    }
}

#[tokio::test]
async fn handler_finishes_after_http2_reset() {
    for server in SERVERS {
        let (shared, mut told) = Shared::new();
        let layer = DeferLayer::new().run_to_completion();
        let handle = layer.handle();
        let served = Served::start(server, app(&shared, layer)).await;
        let stream = TcpStream::connect(served.address).await.unwrap();
        let executor = TokioExecutor::new();
        let (mut client, connection) =
            hyper::client::conn::http2::handshake(executor, TokioIo::new(stream))
                .await
                .unwrap();
        let connection = tokio::spawn(connection);
        let uri = format!("http://{}/", served.address);
        let request = || {
            hyper::Request::get(&uri)
                .body(Empty::<Bytes>::new())
                .unwrap()
        };
        let mut reset = Box::pin(client.send_request(request()));
        tokio::select! {
            _ = &mut reset => panic!("the gate is closed"),
            entered = in_time(told.entered.recv()) => entered.unwrap(),
        }
        drop(reset);
        in_time(told.dropped.recv()).await.unwrap();
        shared.gate.add_permits(2);
        in_time(handle.wait_idle()).await;
        assert_eq!(shared.finished.load(SeqCst), 1);
        assert_eq!(
            shared.completions("by status")[0].delivery(),
            Delivery::Aborted
        );

        let response = in_time(client.send_request(request())).await.unwrap();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body, "hello");
        in_time(handle.wait_idle()).await;
        let last = &shared.completions("by status")[1];
        assert_eq!(
            (last.delivery(), last.body_bytes()),
            (Delivery::Complete, 5)
        );
        drop(client);
        in_time(connection).await.unwrap().unwrap();
        served.stop().await;
    }
}

/// One request and the whole of its response, as text.
async fn exchange(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut response = String::new();
    in_time(stream.read_to_string(&mut response)).await.unwrap();
    response
}

const CLOSE: &str = "GET / HTTP/1.1\r\nhost: here\r\nconnection: close\r\n\r\n";

#[tokio::test]
async fn response_for_client_is_unchanged() {
    for server in SERVERS {
        for (path, body, bytes) in [("/", "hello", 5), ("/empty", "", 0)] {
            let mut responses = Vec::new();
            for detached in [true, false] {
                let (shared, _told) = Shared::new();
                let layer = DeferLayer::new();
                let handle = layer.handle();
                let app = if detached {
                    app(&shared, layer.run_to_completion())
                } else {
                    app(&shared, layer)
                };
                shared.gate.add_permits(1);
                let served = Served::start(server, app).await;
                let request = CLOSE.replacen('/', path, 1);
                let response = exchange(served.address, &request).await;
                assert!(response.starts_with("HTTP/1.1 200 OK\r\n"));
                assert!(response.ends_with(&format!("\r\n\r\n{body}")));
                let lines = response.lines().filter(|line| !line.starts_with("date: "));
                responses.push(lines.map(str::to_owned).collect::<Vec<_>>());
                in_time(handle.wait_idle()).await;
                let completion = &shared.completions("by status")[0];
                assert_eq!(completion.delivery(), Delivery::Complete);
                assert_eq!(completion.body_bytes(), bytes);
                served.stop().await;
            }
            assert_eq!(responses[0], responses[1]);
        }
    }
}

#[tokio::test]
async fn websocket_upgrade_does_not_wait() {
    for server in SERVERS {
        let layer = DeferLayer::new().run_to_completion();
        let (fired, mut has_fired) = mpsc::unbounded_channel();
        let app: Router = Router::new()
            .route(
                "/",
                any(|request: Request| async move {
                    defer(|completion: Completion| async move {
                        fired.send(completion).unwrap();
                    });
                    websocket::upgrade(request, |mut socket| async move {
                        while let Some(Ok(message)) = socket.next().await {
                            if socket.send(message).await.is_err() {
                                return;
                            }
                        }
                    })
                }),
            )
            .layer(layer);
        let served = Served::start(server, app).await;
        let stream = TcpStream::connect(served.address).await.unwrap();
        let uri = format!("ws://{}/", served.address);
        let (mut socket, _) = in_time(tokio_tungstenite::client_async(uri, stream))
            .await
            .unwrap();
        let completion = in_time(has_fired.recv()).await.unwrap();
        assert_eq!(completion.status().unwrap(), 101);
        assert_eq!(completion.delivery(), Delivery::Complete);
        for text in ["one", "two"] {
            socket.send(text.into()).await.unwrap();
            let echo = in_time(socket.next()).await.unwrap().unwrap();
            assert_eq!(echo.into_text().unwrap(), text);
        }
        socket.close(None).await.unwrap();
        drop(socket);
        served.stop().await;
    }
}

#[tokio::test]
async fn broken_request_body_is_an_error() {
    for server in SERVERS {
        let (shared, mut told) = Shared::new();
        let (ended, mut has_ended) = mpsc::unbounded_channel();
        let layer = DeferLayer::new().run_to_completion();
        let handle = layer.handle();
        let app: Router = Router::new()
            .route(
                "/",
                post(|State(shared): State<Shared>, body: Body| async move {
                    shared.defer_both();
                    let mut body = body.into_data_stream();
                    let first = body.next().await.unwrap().unwrap();
                    assert_eq!(first, "ten bytes.");
                    shared.entered.send(()).unwrap();
                    let error = body.next().await.unwrap().unwrap_err();
                    ended.send(error.to_string()).unwrap();
                    tokio::task::yield_now().await;
                    shared.finished.fetch_add(1, SeqCst);
                    "hello"
                }),
            )
            .layer(layer)
            .layer(middleware::from_fn_with_state(shared.clone(), notice))
            .with_state(shared.clone());
        let served = Served::start(server, app).await;
        let mut stream = TcpStream::connect(served.address).await.unwrap();
        let request = "POST / HTTP/1.1\r\nhost: here\r\ncontent-length: 1000\r\n\r\nten bytes.";
        stream.write_all(request.as_bytes()).await.unwrap();
        in_time(told.entered.recv()).await.unwrap();
        SockRef::from(&stream)
            .set_linger(Some(Duration::ZERO))
            .unwrap();
        drop(stream);
        let error = in_time(has_ended.recv()).await.unwrap();
        assert!(!error.is_empty());
        in_time(handle.wait_idle()).await;
        assert_eq!(shared.finished.load(SeqCst), 1);
        let completion = &shared.completions("by status")[0];
        assert_eq!(completion.status().unwrap(), 200);
        if server == Server::AxumDefer {
            // The other one may have taken the response before it saw that nobody will read it.
            assert_eq!(completion.delivery(), Delivery::Aborted);
        }
        served.stop().await;
    }
}

#[tokio::test]
async fn panic_reaches_outer_layers() {
    for server in SERVERS {
        let (shared, _told) = Shared::new();
        let layer = DeferLayer::new().run_to_completion();
        let handle = layer.handle();
        let app: Router = Router::new()
            .route(
                "/",
                get(|State(shared): State<Shared>| async move {
                    shared.defer_both();
                    if shared.finished.load(SeqCst) == 0 {
                        panic!("of the handler");
                    }
                }),
            )
            .layer(layer)
            .layer(CatchPanicLayer::custom(
                |payload: Box<dyn std::any::Any + Send>| {
                    let message = *payload.downcast::<&'static str>().unwrap();
                    let mut response = Response::new(Body::from(message));
                    *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
                    response
                },
            ))
            .with_state(shared.clone());
        let served = Served::start(server, app).await;
        let response = exchange(served.address, CLOSE).await;
        assert!(response.starts_with("HTTP/1.1 500 "), "{response}");
        assert!(response.ends_with("\r\n\r\nof the handler"));
        in_time(handle.wait_idle()).await;
        assert!(shared.completions("by status").is_empty());
        assert_eq!(
            shared.completions("always")[0].delivery(),
            Delivery::NoResponse
        );
        served.stop().await;
    }
}

#[tokio::test]
async fn uncaught_panic_reaches_the_caller() {
    let service = DeferLayer::new()
        .run_to_completion()
        .layer(service_fn(|_: Request| async {
            panic!("of the handler") as Result<Response<Body>, Infallible>
        }));
    let task = tokio::spawn(service.oneshot(Request::new(Body::empty())));
    let payload = in_time(task).await.unwrap_err().into_panic();
    assert_eq!(
        *payload.downcast::<&'static str>().unwrap(),
        "of the handler"
    );
}

#[tokio::test]
async fn late_panic_is_no_response() {
    let (shared, mut told) = Shared::new();
    let layer = DeferLayer::new().run_to_completion();
    let handle = layer.handle();
    let shared_with = shared.clone();
    let service = layer.layer(service_fn(move |_: Request| {
        let shared = shared_with.clone();
        async move {
            shared.work().await;
            panic!("nobody is there to hear it") as Result<Response<Body>, Infallible>
        }
    }));
    let mut response = Box::pin(service.oneshot(Request::new(Body::empty())));
    assert!(futures_util::poll!(&mut response).is_pending());
    in_time(told.entered.recv()).await.unwrap();
    drop(response);
    shared.gate.add_permits(1);
    in_time(handle.wait_idle()).await;
    assert!(shared.completions("by status").is_empty());
    assert_eq!(
        shared.completions("always")[0].delivery(),
        Delivery::NoResponse
    );
}

/// A server whose client is gone and whose handler still works when the shutdown begins.
async fn left_alone(server: Server, layer: DeferLayer) -> (Served, Shared, DeferHandle) {
    let (shared, mut told) = Shared::new();
    let layer = layer.run_to_completion();
    let handle = layer.handle();
    let served = Served::start(server, app(&shared, layer)).await;
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    stream.write_all(CLOSE.as_bytes()).await.unwrap();
    in_time(told.entered.recv()).await.unwrap();
    SockRef::from(&stream)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
    drop(stream);
    in_time(told.dropped.recv()).await.unwrap();
    (served, shared, handle)
}

#[tokio::test]
async fn shutdown_waits_for_handler() {
    let (served, shared, _) = left_alone(Server::AxumDefer, DeferLayer::new()).await;
    served.stop.send(()).unwrap();
    until_refused(served.address).await;
    assert!(!served.task.is_finished());
    shared.gate.add_permits(1);
    let report = in_time(served.task).await.unwrap().unwrap();
    assert_eq!(shared.finished.load(SeqCst), 1);
    assert_eq!(shared.completions("by status").len(), 1);
    assert!(report.is_complete());
    assert_eq!((report.succeeded, report.failed, report.skipped), (2, 0, 0));
}

#[tokio::test]
async fn drain_waits_for_handler() {
    let events = Events::default();
    let layer = DeferLayer::new().observer(events.clone());
    let (served, shared, handle) = left_alone(Server::Axum, layer).await;
    served.stop().await;
    let drain = handle.drain(Duration::from_secs(60));
    let mut drain = Box::pin(drain);
    assert!(futures_util::poll!(&mut drain).is_pending());
    shared.gate.add_permits(1);
    let report = drain.await;
    assert!(report.is_complete());
    assert_eq!(report.succeeded, 2);
    assert_eq!(events.starting_with("finished").len(), 2);
}

#[tokio::test]
async fn report_lists_unfinished_handler() {
    let layer = DeferLayer::new().run_to_completion();
    let handle = layer.handle();
    let gate = Arc::new(Semaphore::new(0));
    let opened = gate.clone();
    let service = layer.layer(service_fn(move |_: Request| {
        let gate = opened.clone();
        async move {
            gate.acquire().await.unwrap().forget();
            Ok::<_, Infallible>(Response::new(Body::empty()))
        }
    }));
    let mut response = Box::pin(service.oneshot(Request::new(Body::empty())));
    assert!(futures_util::poll!(&mut response).is_pending());
    drop(response);

    let report = handle.drain(Duration::ZERO).await;
    assert_eq!(report.running_handlers, 1);
    assert!(!report.is_complete());
    assert!(report.to_string().contains("1 handler"), "{report}");
    gate.add_permits(1);
    let report = in_time(handle.drain(Duration::from_secs(60))).await;
    assert_eq!(report.running_handlers, 0);
    assert!(report.is_complete());
    assert!(!report.to_string().contains("handler"), "{report}");
}

#[tokio::test]
async fn request_during_shutdown_is_awaited() {
    let (shared, mut told) = Shared::new();
    let outer = DeferLayer::new().run_to_completion();
    let inner = DeferLayer::new();
    let ran = Arc::new(AtomicUsize::new(0));
    let callback_gate = Arc::new(Semaphore::new(0));
    let (counts, opened) = (ran.clone(), callback_gate.clone());
    let app: Router = Router::new()
        .route(
            "/",
            get(|| async move {
                defer(async move {
                    opened.acquire().await.unwrap().forget();
                    counts.fetch_add(1, SeqCst);
                });
            }),
        )
        .layer(inner)
        .layer(middleware::from_fn_with_state(
            shared.clone(),
            |State(shared): State<Shared>, request: Request, next: Next| async move {
                shared.entered.send(()).unwrap();
                shared.gate.acquire().await.unwrap().forget();
                next.run(request).await
            },
        ))
        .layer(outer)
        .layer(middleware::from_fn_with_state(shared.clone(), notice));
    let served = Served::start(Server::AxumDefer, app).await;
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    stream.write_all(CLOSE.as_bytes()).await.unwrap();
    in_time(told.entered.recv()).await.unwrap();
    drop(stream);
    in_time(told.dropped.recv()).await.unwrap();
    served.stop.send(()).unwrap();
    until_refused(served.address).await;
    shared.gate.add_permits(1);
    for _ in 0..1_000 {
        tokio::task::yield_now().await;
    }
    callback_gate.add_permits(1);
    let report = in_time(served.task).await.unwrap().unwrap();
    assert_eq!((ran.load(SeqCst), report.succeeded), (1, 1));
}

#[tokio::test]
async fn handler_runs_in_request_span() {
    use tracing_subscriber::layer::SubscriberExt;

    /// Writes down in which span each event happens.
    #[derive(Clone, Default)]
    struct Inside(Arc<Mutex<Vec<Option<&'static str>>>>);
    impl<S> tracing_subscriber::Layer<S> for Inside
    where
        S: tracing::Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a>,
    {
        fn on_event(
            &self,
            event: &tracing::Event<'_>,
            context: tracing_subscriber::layer::Context<'_, S>,
        ) {
            if event.metadata().target() == "handler" {
                let span = context.event_span(event).map(|span| span.name());
                self.0.lock().unwrap().push(span);
            }
        }
    }
    let inside = Inside::default();
    let subscriber = tracing_subscriber::registry().with(inside.clone());
    let _guard = subscriber::listen(subscriber);
    let app: Router = Router::new()
        .route(
            "/",
            get(|| async {
                tracing::info!(target: "handler", "before a wait");
                tokio::task::yield_now().await;
                tracing::info!(target: "handler", "after a wait");
            }),
        )
        .layer(DeferLayer::new().run_to_completion())
        .layer(
            TraceLayer::new_for_http().make_span_with(|_: &Request| tracing::info_span!("request")),
        );
    app.oneshot(Request::new(Body::empty())).await.unwrap();
    assert_eq!(*inside.0.lock().unwrap(), [Some("request"); 2]);
}

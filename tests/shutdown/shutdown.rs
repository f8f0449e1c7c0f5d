//! The graceful shutdown of `axum_defer::serve`, what `serve` accepts, and `DeferHandle` for
//! those who keep `axum::serve`.

#![allow(clippy::unwrap_used)]

use std::{convert::Infallible, future::pending, io, net::SocketAddr, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::ConnectInfo,
    handler::{Handler, HandlerWithoutStateExt},
    http::{Request, StatusCode},
    response::sse::{Event, Sse},
    routing::get,
    serve::{Listener, ListenerExt},
};
use axum_defer::{
    Completion, DeferLayer, DeferredCallbackCollection, Delivery, DrainReport, Level, defer, serve,
};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http_body_util::{BodyExt, Full};
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::Instant,
};
use tower::{ServiceBuilder, make::Shared};

use crate::support::{self, gate::Gate, in_time, listen, until_refused};

/// Short, and nothing depends on how long it takes: it is for what never ends.
const SHORT: Duration = Duration::from_millis(20);
/// Nothing may need it: with it, a shutdown that waits for the deadline hangs.
const LONG: Duration = Duration::from_secs(3600);

struct Server {
    address: SocketAddr,
    shut_down: oneshot::Sender<()>,
    report: JoinHandle<DrainReport>,
}

impl Server {
    async fn start(app: Router, drain: Duration, connections: Option<Duration>) -> Self {
        let (listener, address) = listen().await;
        let (shut_down, signal) = oneshot::channel::<()>();
        let mut server = serve(listener, app)
            .with_graceful_shutdown(async move { signal.await.unwrap() })
            .drain_timeout(drain);
        if let Some(timeout) = connections {
            server = server.connection_timeout(timeout);
        }
        let report = tokio::spawn(async { server.await.unwrap() });
        Self {
            address,
            shut_down,
            report,
        }
    }

    async fn http1(&self) -> http1::SendRequest<Full<Bytes>> {
        let stream = TcpStream::connect(self.address).await.unwrap();
        http1_client(stream).await
    }

    async fn http2(&self) -> http2::SendRequest<Full<Bytes>> {
        support::http2(self.address).await
    }

    async fn shut_down(self) -> DrainReport {
        self.shut_down.send(()).unwrap();
        in_time(self.report).await.unwrap()
    }
}

async fn http1_client<S>(stream: S) -> http1::SendRequest<Full<Bytes>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (client, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    client
}

fn request(path: &str) -> Request<Full<Bytes>> {
    Request::get(path)
        .header("host", "a")
        .body(Full::default())
        .unwrap()
}

fn request_http2(path: &str) -> Request<Full<Bytes>> {
    request(&format!("http://a{path}"))
}

async fn text(response: http::Response<Incoming>) -> String {
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(bytes.to_vec()).unwrap()
}

async fn now() -> &'static str {
    defer(async {});
    "hello"
}

/// Handlers that wait for the test, and defer callbacks of every fate.
fn waiting_app(gate: Gate) -> (Router, axum_defer::DeferHandle) {
    let layer = DeferLayer::new();
    let handle = layer.handle();
    let waits = move |status: StatusCode| {
        let gate = gate.clone();
        get(move || async move {
            gate.pass().await;
            defer(async {});
            defer(async { Err::<(), _>("it failed") }).always();
            defer(async { panic!("on purpose") }).when(|completion| completion.is_success());
            (status, "answered")
        })
    };
    let app = Router::new()
        .route("/ok", waits(StatusCode::OK))
        .route("/error", waits(StatusCode::INTERNAL_SERVER_ERROR))
        .route("/now", get(now))
        .layer(layer);
    (app, handle)
}

#[tokio::test]
async fn responses_in_flight_finish_their_callbacks_are_drained_and_counted() {
    let (gate, mut entries) = Gate::new();
    let (app, handle) = waiting_app(gate.clone());
    let server = Server::start(app, LONG, None).await;
    let address = server.address;

    // What has run before the shutdown is not part of its report.
    let mut client = server.http1().await;
    let before = client.send_request(request("/now")).await.unwrap();
    assert_eq!(text(before).await, "hello");
    handle.wait_idle().await;

    let mut http2 = server.http2().await;
    let over_http1 = tokio::spawn(client.send_request(request("/ok")));
    let over_http2 = tokio::spawn(http2.send_request(request_http2("/error")));
    in_time(entries.recv()).await.unwrap();
    in_time(entries.recv()).await.unwrap();

    server.shut_down.send(()).unwrap();
    until_refused(address).await;
    assert!(!server.report.is_finished());

    gate.open();
    let response = in_time(over_http1).await.unwrap().unwrap();
    assert_eq!(text(response).await, "answered");
    let response = in_time(over_http2).await.unwrap().unwrap();
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(text(response).await, "answered");

    let report = in_time(server.report).await.unwrap();
    let counts = (report.succeeded, report.failed, report.skipped, report.lost);
    // 200: one runs, two fail. 500: the `always` one fails, two are skipped.
    assert_eq!(counts, (1, 3, 2, 0), "{report}");
    assert!(report.is_complete());
}

#[tokio::test]
async fn idle_keep_alive_connections_are_closed_at_once() {
    let app = Router::new()
        .route("/", get(|| async { "hello" }))
        .layer(DeferLayer::new());
    let server = Server::start(app, LONG, None).await;
    let mut http1 = server.http1().await;
    let mut http2 = server.http2().await;
    let response = http1.send_request(request("/")).await.unwrap();
    assert_eq!(text(response).await, "hello");
    let response = http2.send_request(request_http2("/")).await.unwrap();
    assert_eq!(text(response).await, "hello");
    let never_used = TcpStream::connect(server.address).await.unwrap();

    let report = server.shut_down().await;
    assert!(report.is_complete() && report.succeeded == 0);
    assert!(in_time(http1.ready()).await.is_err());
    in_time(async { while http2.ready().await.is_ok() {} }).await;
    drop(never_used);
}

#[tokio::test]
async fn what_is_not_finished_at_the_deadline_stands_in_the_report_by_name() {
    let (gate, mut starts) = Gate::new();
    let in_callback = gate.clone();
    let handler = move || async move {
        defer(in_callback.pass()).name("stuck");
        defer(async {}).name("behind it");
        defer(async {});
    };
    let layer = DeferLayer::new();
    let handle = layer.handle();
    let app = Router::new().route("/", get(handler)).layer(layer);
    let server = Server::start(app, SHORT, None).await;
    let mut client = server.http1().await;
    client.send_request(request("/")).await.unwrap();
    in_time(starts.recv()).await.unwrap();

    let report = server.shut_down().await;
    let unfinished: Vec<_> = report
        .unfinished
        .iter()
        .map(|callback| (callback.name(), callback.is_running()))
        .collect();
    assert_eq!(
        unfinished,
        [
            (Some("stuck"), true),
            (Some("behind it"), false),
            (None, false)
        ]
    );
    assert!(
        report.unfinished[0]
            .location()
            .file()
            .ends_with("shutdown.rs")
    );
    assert!(!report.is_complete());
    let printed = report.to_string();
    assert!(printed.contains("3 unfinished: stuck (") && printed.contains("behind it ("));

    // The report ends the waiting, not the callbacks.
    gate.open();
    in_time(handle.wait_idle()).await;
}

#[tokio::test]
async fn a_callback_that_waits_for_its_handle_stands_in_the_report() {
    let layer = DeferLayer::new();
    let deferred = layer
        .scope(async { Ok::<_, ()>(DeferredCallbackCollection::current().unwrap()) })
        .await
        .unwrap();
    let kept = deferred.defer(async {}).name("kept");
    deferred.defer(async {});
    let report = layer.handle().drain(SHORT).await;
    let names: Vec<_> = report.unfinished.iter().map(|left| left.name()).collect();
    assert_eq!((names, report.succeeded), (vec![Some("kept")], 1));
    drop(kept);
    in_time(layer.handle().wait_idle()).await;
}

/// Sends events as long as somebody listens.
fn events(sender: mpsc::UnboundedSender<Completion>) -> Router {
    let stream = get(move || async move {
        defer(move |completion: Completion| async move { sender.send(completion) })
            .name("after the events");
        let first = stream::iter([Ok::<_, Infallible>(Event::default().data("first"))]);
        Sse::new(first.chain(stream::pending()))
    });
    Router::new().route("/", stream).layer(DeferLayer::new())
}

/// The body of a response whose first event has arrived.
async fn after_the_first_event(response: http::Response<Incoming>) -> Incoming {
    let mut body = response.into_body();
    let frame = body.frame().await.unwrap().unwrap();
    assert_eq!(&frame.into_data().unwrap()[..], b"data: first\n\n");
    body
}

/// The same over a new connection, and what keeps it open: over HTTP/2, that is the client.
async fn first_event(
    server: &Server,
    is_http2: bool,
) -> (Incoming, Option<http2::SendRequest<Full<Bytes>>>) {
    if is_http2 {
        let mut client = server.http2().await;
        let response = client.send_request(request_http2("/")).await.unwrap();
        (after_the_first_event(response).await, Some(client))
    } else {
        let mut client = server.http1().await;
        let response = client.send_request(request("/")).await.unwrap();
        (after_the_first_event(response).await, None)
    }
}

#[tokio::test]
async fn a_response_that_never_ends_does_not_hold_the_shutdown_past_the_deadline() {
    for is_http2 in [false, true] {
        let (sender, mut completions) = mpsc::unbounded_channel();
        let server = Server::start(events(sender), SHORT, None).await;
        let (body, _client) = first_event(&server, is_http2).await;
        let report = server.shut_down().await;
        // Cut at the very end, the callback is on its way or done; it is not forgotten.
        let named = report
            .unfinished
            .iter()
            .filter(|callback| callback.name() == Some("after the events"));
        assert_eq!(named.count() as u64 + report.succeeded, 1, "{report}");
        let completion = in_time(completions.recv()).await.unwrap();
        assert_eq!(completion.delivery(), Delivery::Aborted);
        drop(body);
    }
}

#[tokio::test]
async fn a_response_that_is_cut_at_the_connection_timeout_has_its_callback_in_the_drain() {
    for is_http2 in [false, true] {
        let (sender, mut completions) = mpsc::unbounded_channel();
        let server = Server::start(events(sender), LONG, Some(SHORT)).await;
        let (body, _client) = first_event(&server, is_http2).await;
        let report = server.shut_down().await;
        assert!(
            report.unfinished.is_empty() && report.succeeded == 1,
            "{report}"
        );
        assert_eq!(report.aborted_connections, 1);
        let completion = completions.try_recv().unwrap();
        assert_eq!(completion.delivery(), Delivery::Aborted);
        assert_eq!(completion.level(), Level::Flushed);
        assert_eq!(completion.body_bytes(), 13);
        drop(body);
    }
}

/// Its one connection is in memory: while the clock is paused, nothing may wait for a socket.
struct InMemory(Option<DuplexStream>);

impl Listener for InMemory {
    type Io = DuplexStream;
    type Addr = ();

    async fn accept(&mut self) -> (DuplexStream, ()) {
        match self.0.take() {
            Some(io) => (io, ()),
            None => pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn connections_have_nine_tenths_of_the_shutdown_by_default() {
    let (sender, mut completions) = mpsc::unbounded_channel();
    let (client, io) = tokio::io::duplex(1024);
    let (shut_down, signal) = oneshot::channel::<()>();
    let server = serve(InMemory(Some(io)), events(sender))
        .with_graceful_shutdown(async move { signal.await.unwrap() })
        .drain_timeout(Duration::from_secs(10));
    let report = tokio::spawn(server.into_future());
    let mut client = http1_client(client).await;
    let response = client.send_request(request("/")).await.unwrap();
    let _body = after_the_first_event(response).await;

    let start = Instant::now();
    shut_down.send(()).unwrap();
    in_time(completions.recv()).await.unwrap();
    assert_eq!(start.elapsed(), Duration::from_secs(9));
    let report = in_time(report).await.unwrap().unwrap();
    assert!(
        report.unfinished.is_empty() && report.succeeded == 1,
        "{report}"
    );
    assert_eq!(report.aborted_connections, 1);
}

#[tokio::test]
async fn a_handler_that_runs_to_completion_is_drained_without_its_client() {
    let (gate, mut entries) = Gate::new();
    let in_handler = gate.clone();
    let app = Router::new()
        .route(
            "/",
            get(move || async move {
                in_handler.pass().await;
                defer(async {});
            }),
        )
        .layer(DeferLayer::new().run_to_completion());
    let server = Server::start(app, LONG, None).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream
        .write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        .await
        .unwrap();
    in_time(entries.recv()).await.unwrap();
    drop(stream);
    server.shut_down.send(()).unwrap();
    let address = server.address;
    until_refused(address).await;
    gate.open();
    let report = in_time(server.report).await.unwrap();
    assert!(report.is_complete() && report.succeeded == 1, "{report}");
}

#[tokio::test]
async fn callbacks_of_two_layers_are_drained_together() {
    let app = Router::new()
        .route("/a", get(|| async { drop(defer(async {}).name("a")) }))
        .layer(DeferLayer::new())
        .merge(
            Router::new()
                .route(
                    "/b",
                    get(|| async { drop(defer(std::future::pending::<()>()).name("b")) }),
                )
                .layer(DeferLayer::new()),
        )
        .route(
            "/c",
            get(|| async { drop(defer(std::future::pending::<()>()).name("c")) })
                .layer(DeferLayer::new()),
        );
    let server = Server::start(app, SHORT, None).await;
    let mut client = server.http1().await;
    for path in ["/a", "/b", "/c"] {
        client.ready().await.unwrap();
        let response = client.send_request(request(path)).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
    }
    let report = server.shut_down().await;
    let mut names: Vec<_> = report.unfinished.iter().map(|left| left.name()).collect();
    names.sort_unstable();
    assert_eq!(names, [Some("b"), Some("c")], "{report}");
}

/// Defers what tells the level, as every app below does.
fn tell(sender: &mpsc::UnboundedSender<Level>) {
    let sender = sender.clone();
    defer(move |completion: Completion| async move { sender.send(completion.level()) });
}

async fn ask<S>(stream: S) -> String
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut client = http1_client(stream).await;
    text(client.send_request(request("/")).await.unwrap()).await
}

#[tokio::test]
async fn a_make_service_gives_handlers_the_address_of_the_client() {
    let (sender, mut levels) = mpsc::unbounded_channel();
    let app = Router::new()
        .route(
            "/",
            get(
                move |ConnectInfo(address): ConnectInfo<SocketAddr>| async move {
                    tell(&sender);
                    address.to_string()
                },
            ),
        )
        .layer(DeferLayer::new());
    for is_tapped in [false, true] {
        let make_service = app
            .clone()
            .into_make_service_with_connect_info::<SocketAddr>();
        let (listener, address) = listen().await;
        if is_tapped {
            let listener = listener.tap_io(|stream| stream.set_nodelay(true).unwrap());
            let server = serve(listener, make_service);
            assert_eq!(server.local_addr().unwrap(), address);
            tokio::spawn(server.into_future());
        } else {
            tokio::spawn(serve(listener, make_service).into_future());
        }
        let stream = TcpStream::connect(address).await.unwrap();
        let own_address = stream.local_addr().unwrap().to_string();
        assert_eq!(ask(stream).await, own_address);
        assert_eq!(in_time(levels.recv()).await, Some(Level::Flushed));
    }
}

#[tokio::test]
async fn a_method_router_a_handler_and_a_router_s_make_service_are_served() {
    let (sender, mut levels) = mpsc::unbounded_channel();
    let handler = move || async move {
        tell(&sender);
        "served"
    };
    let mut addresses = Vec::new();
    let mut listeners = Vec::new();
    for _ in 0..5 {
        let (listener, address) = listen().await;
        addresses.push(address);
        listeners.push(listener);
    }
    let mut listeners = listeners.into_iter();
    let mut listener = || listeners.next().unwrap();
    let method_router = get(handler.clone()).layer(DeferLayer::new());
    tokio::spawn(serve(listener(), method_router.clone()).into_future());
    tokio::spawn(serve(listener(), method_router.into_make_service()).into_future());
    let layered = handler.clone().layer(DeferLayer::new());
    tokio::spawn(serve(listener(), layered.clone().with_state(())).into_future());
    tokio::spawn(serve(listener(), layered.into_make_service()).into_future());
    let router = Router::new()
        .route("/", get(handler))
        .layer(DeferLayer::new());
    tokio::spawn(serve(listener(), router.into_make_service()).into_future());
    for address in addresses {
        let stream = TcpStream::connect(address).await.unwrap();
        assert_eq!(ask(stream).await, "served");
        assert_eq!(in_time(levels.recv()).await, Some(Level::Flushed));
    }
}

#[tokio::test]
async fn a_service_is_called_when_it_is_ready_and_not_before() {
    let app = Router::new().route("/", get(|| async { "ready" }));
    // This one panics when it is called before.
    let app = ServiceBuilder::new().concurrency_limit(1).service(app);
    let (listener, address) = listen().await;
    tokio::spawn(serve(listener, Shared::new(app)).into_future());
    assert_eq!(
        ask(TcpStream::connect(address).await.unwrap()).await,
        "ready"
    );
}

#[tokio::test]
async fn a_unix_socket_is_served() {
    let (sender, mut levels) = mpsc::unbounded_channel();
    let app = Router::new()
        .route(
            "/",
            get(move || async move {
                tell(&sender);
                "over a unix socket"
            }),
        )
        .layer(DeferLayer::new());
    let name = format!("axum-defer-shutdown-{}", std::process::id());
    let path = std::env::temp_dir().join(name);
    let listener = UnixListener::bind(&path).unwrap();
    let (shut_down, signal) = oneshot::channel::<()>();
    let server = serve(listener, app).with_graceful_shutdown(async { signal.await.unwrap() });
    let server = tokio::spawn(server.into_future());
    let stream = UnixStream::connect(&path).await.unwrap();
    std::fs::remove_file(&path).unwrap();
    assert_eq!(ask(stream).await, "over a unix socket");
    assert_eq!(in_time(levels.recv()).await, Some(Level::Flushed));
    shut_down.send(()).unwrap();
    assert!(in_time(server).await.unwrap().unwrap().is_complete());
}

#[tokio::test]
async fn with_axum_serve_the_handle_counts_waits_and_drains() {
    let layer = DeferLayer::new();
    let handle = layer.handle();
    let (gate, mut starts) = Gate::new();
    let in_callback = gate.clone();
    let handler = move || async move {
        defer(in_callback.pass()).name("waits");
        defer(async {}).name("after it");
        Body::from("hello")
    };
    let app = Router::new().route("/", get(handler)).layer(layer);
    let (listener, address) = listen().await;
    let (shut_down, signal) = oneshot::channel::<()>();
    let server = axum::serve(listener, app)
        .with_graceful_shutdown(async move { signal.await.unwrap() })
        .into_future();
    let server = tokio::spawn(server);

    assert_eq!((handle.pending(), handle.running()), (0, 0));
    handle.wait_idle().await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream
        .write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
        .await
        .unwrap();
    in_time(stream.read_to_end(&mut Vec::new())).await.unwrap();
    in_time(starts.recv()).await.unwrap();
    assert_eq!((handle.pending(), handle.running()), (1, 1));

    shut_down.send(()).unwrap();
    in_time(server).await.unwrap().unwrap();
    let report = in_time(handle.drain(SHORT)).await;
    let names: Vec<_> = report.unfinished.iter().map(|left| left.name()).collect();
    assert_eq!(names, [Some("waits"), Some("after it")]);
    assert_eq!(report.succeeded, 0);

    let drain = tokio::spawn({
        let handle = handle.clone();
        async move { handle.drain(LONG).await }
    });
    // The drain counts from its first poll, which is now: this runtime has one thread.
    tokio::task::yield_now().await;
    gate.open();
    let report = in_time(drain).await.unwrap();
    assert!(report.is_complete() && report.succeeded == 2, "{report}");
    assert_eq!((handle.pending(), handle.running()), (0, 0));
}

/// Asks for one byte before it hands a connection out, as TLS asks for a handshake.
struct Greeting {
    tcp: TcpListener,
    awaits_greeting: mpsc::UnboundedSender<()>,
}

impl axum::serve::Listener for Greeting {
    type Io = TcpStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (TcpStream, SocketAddr) {
        let (mut stream, address) = self.tcp.accept().await.unwrap();
        self.awaits_greeting.send(()).unwrap();
        stream.read_u8().await.unwrap();
        (stream, address)
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.tcp.local_addr()
    }
}

#[tokio::test]
async fn a_handshake_in_the_listener_outlives_the_end_of_another_connection() {
    let (tcp, address) = listen().await;
    let (awaits_greeting, mut greetings) = mpsc::unbounded_channel();
    let listener = Greeting {
        tcp,
        awaits_greeting,
    };
    let app = Router::new().route("/", get(|| async { "hello" }));
    tokio::spawn(serve(listener, app).into_future());

    let request = b"!GET / HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n";
    let mut first = TcpStream::connect(address).await.unwrap();
    greetings.recv().await.unwrap();
    let mut second = None;
    let mut response = Vec::new();
    first.write_all(&request[..1]).await.unwrap();
    for part in [&request[1..20], &request[20..]] {
        first.write_all(part).await.unwrap();
        if second.is_none() {
            second = Some(TcpStream::connect(address).await.unwrap());
            in_time(greetings.recv()).await.unwrap();
        }
    }
    first.read_to_end(&mut response).await.unwrap();
    // There is one thread: the server gets to see that the first connection has ended.
    for _ in 0..1_000 {
        tokio::task::yield_now().await;
    }

    let mut second = second.unwrap();
    let mut response = String::new();
    second.write_all(request).await.unwrap();
    in_time(second.read_to_string(&mut response)).await.unwrap();
    assert!(response.ends_with("hello"), "{response}");
}

#[tokio::test]
async fn a_request_in_the_socket_is_answered() {
    use std::io::{Read, Write};
    for _ in 0..20 {
        let app = Router::new().route("/", get(|| async { "hello" }));
        let (listener, address) = listen().await;
        let (shut_down, signal) = oneshot::channel::<()>();
        let server = serve(listener, app).with_graceful_shutdown(async { signal.await.unwrap() });
        let server = tokio::spawn(server.into_future());
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream
            .write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
            .await
            .unwrap();
        let mut part = [0; 1024];
        let length = in_time(stream.read(&mut part)).await.unwrap();
        assert!(part[..length].ends_with(b"hello"));

        // The runtime does not run between the request and the signal.
        let mut stream = stream.into_std().unwrap();
        stream.set_nonblocking(false).unwrap();
        stream
            .write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
            .unwrap();
        shut_down.send(()).unwrap();
        assert!(in_time(server).await.unwrap().unwrap().is_complete());
        let mut received = String::new();
        stream.read_to_string(&mut received).unwrap();
        assert!(received.ends_with("hello"), "{received:?}");
    }
}

/// A request has passed through the layer, and has deferred nothing.
#[tokio::test]
async fn scopes_of_a_layer_are_waited_for() {
    let layer = DeferLayer::new();
    let app = Router::new()
        .route("/", get(|| async { "hello" }))
        .layer(layer.clone());
    let (listener, address) = listen().await;
    let (shut_down, signal) = oneshot::channel::<()>();
    let server = serve(listener, app).with_graceful_shutdown(async { signal.await.unwrap() });
    let server = tokio::spawn(server.into_future());
    let stream = TcpStream::connect(address).await.unwrap();
    assert_eq!(ask(stream).await, "hello");
    let (go_on, may_go_on) = oneshot::channel::<()>();
    tokio::spawn(layer.scope(async {
        defer(async { may_go_on.await.unwrap() });
    }));
    tokio::task::yield_now().await;
    shut_down.send(()).unwrap();
    support::until_refused(address).await;
    assert!(!server.is_finished());
    go_on.send(()).unwrap();
    let report = in_time(server).await.unwrap().unwrap();
    assert_eq!(
        (report.succeeded, report.is_complete()),
        (1, true),
        "{report}"
    );
}

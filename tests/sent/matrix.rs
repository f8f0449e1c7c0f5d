//! Every protocol over every transport with every size and shape of a body: each response fires
//! once, as sent, with the bytes that it had, while its connection is open.

#![allow(clippy::unwrap_used)]

use std::{
    fmt::Debug,
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use axum::{
    Router,
    body::Body,
    extract::Path,
    http::{Method, StatusCode},
    response::{IntoResponse, Response},
    routing::get,
    serve::Listener,
};
use axum_defer::{Completion, DeferHandle, DeferLayer, Delivery, Level, defer, serve};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpStream, UnixListener, UnixStream},
    sync::mpsc,
};
use tokio_rustls::{
    TlsAcceptor, TlsConnector,
    rustls::{
        ClientConfig, RootCertStore, ServerConfig,
        pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName},
    },
};

use crate::support::{in_time, listen, shapes::Shape};

const SIZES: [usize; 7] = [0, 13, 255, 256, 1024, 100 * 1024, 16 * 1024 * 1024];

type Completions = mpsc::UnboundedReceiver<Completion>;

/// Answers `/body/{shape}/{size}`, `/no-content` and `/not-modified`, and reports completions.
fn app() -> (Router, Completions, DeferHandle) {
    let (sender, completions) = mpsc::unbounded_channel();
    let report = move || {
        let sender = sender.clone();
        defer(move |completion: Completion| async move { sender.send(completion) }).always();
    };
    let layer = DeferLayer::new();
    let handle = layer.handle();
    let reports = report.clone();
    let body = get(
        move |Path((shape, size)): Path<(usize, usize)>| async move {
            reports();
            Shape::ALL[shape].response(size)
        },
    );
    let reports = report.clone();
    let no_content = get(move || async move {
        reports();
        StatusCode::NO_CONTENT
    });
    let not_modified = get(move || async move {
        report();
        StatusCode::NOT_MODIFIED.into_response()
    });
    let app = Router::new()
        .route("/body/{shape}/{size}", body)
        .route("/no-content", no_content)
        .route("/not-modified", not_modified)
        .layer(layer);
    (app, completions, handle)
}

trait Transport: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Transport for T {}
type Connection = Box<dyn Transport>;

/// Shakes hands over whatever the inner listener accepts.
struct TlsListener<L> {
    inner: L,
    acceptor: TlsAcceptor,
}

impl<L: Listener> Listener for TlsListener<L> {
    type Io = tokio_rustls::server::TlsStream<L::Io>;
    type Addr = L::Addr;

    async fn accept(&mut self) -> (Self::Io, L::Addr) {
        loop {
            let (stream, address) = self.inner.accept().await;
            if let Ok(stream) = self.acceptor.accept(stream).await {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> io::Result<L::Addr> {
        self.inner.local_addr()
    }
}

fn tls() -> (TlsAcceptor, TlsConnector) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let certificate = made.cert.der().clone();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let server = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)
        .unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(certificate).unwrap();
    let client = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    (
        TlsAcceptor::from(Arc::new(server)),
        TlsConnector::from(Arc::new(client)),
    )
}

#[derive(Clone, Copy, Debug)]
enum Socket {
    Tcp,
    Unix,
}

#[derive(Clone, Copy, Debug)]
enum Privacy {
    Plain,
    Tls,
}

async fn connect_to_server(socket: Socket, privacy: Privacy, app: Router) -> Connection {
    let (acceptor, connector) = tls();
    let stream: Connection = match socket {
        Socket::Tcp => {
            let (listener, address) = listen().await;
            spawn_server(listener, privacy, acceptor, app);
            Box::new(TcpStream::connect(address).await.unwrap())
        }
        Socket::Unix => {
            static SOCKETS: AtomicUsize = AtomicUsize::new(0);
            let name = format!(
                "axum-defer-matrix-{}-{}",
                std::process::id(),
                SOCKETS.fetch_add(1, Relaxed)
            );
            let path = std::env::temp_dir().join(name);
            let listener = UnixListener::bind(&path).unwrap();
            spawn_server(listener, privacy, acceptor, app);
            let stream = UnixStream::connect(&path).await.unwrap();
            std::fs::remove_file(path).unwrap();
            Box::new(stream)
        }
    };
    match privacy {
        Privacy::Plain => stream,
        Privacy::Tls => {
            let name = ServerName::try_from("localhost").unwrap();
            Box::new(connector.connect(name, stream).await.unwrap())
        }
    }
}

fn spawn_server<L>(listener: L, privacy: Privacy, acceptor: TlsAcceptor, app: Router)
where
    L: Listener<Addr: Debug>,
{
    match privacy {
        Privacy::Plain => drop(tokio::spawn(serve(listener, app).into_future())),
        Privacy::Tls => {
            let listener = TlsListener {
                inner: listener,
                acceptor,
            };
            drop(tokio::spawn(serve(listener, app).into_future()));
        }
    }
}

/// A client of either protocol.
enum Client {
    Http1(http1::SendRequest<Empty<Bytes>>),
    Http2(http2::SendRequest<Empty<Bytes>>),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Protocol {
    Http1,
    Http2,
}

impl Client {
    async fn new(protocol: Protocol, stream: Connection) -> Self {
        let io = TokioIo::new(stream);
        match protocol {
            Protocol::Http1 => {
                let (client, connection) = http1::handshake(io).await.unwrap();
                tokio::spawn(connection);
                Self::Http1(client)
            }
            Protocol::Http2 => {
                let (client, connection) = http2::Builder::new(TokioExecutor::new())
                    .initial_stream_window_size(1024 * 1024)
                    .initial_connection_window_size(1024 * 1024)
                    .handshake(io)
                    .await
                    .unwrap();
                tokio::spawn(connection);
                Self::Http2(client)
            }
        }
    }

    async fn send(&mut self, method: Method, path: &str) -> Response<hyper::body::Incoming> {
        let request = axum::http::Request::builder()
            .method(method)
            .header("host", "a")
            .header("te", "trailers");
        match self {
            Self::Http1(client) => {
                client.ready().await.unwrap();
                let request = request.uri(path).body(Empty::new()).unwrap();
                client.send_request(request).await.unwrap()
            }
            Self::Http2(client) => {
                client.ready().await.unwrap();
                let uri = format!("http://a{path}");
                let request = request.uri(uri).body(Empty::new()).unwrap();
                client.send_request(request).await.unwrap()
            }
        }
    }

    fn is_open(&self) -> bool {
        match self {
            Self::Http1(client) => !client.is_closed(),
            Self::Http2(client) => !client.is_closed(),
        }
    }
}

/// One row: what is asked for, and how many bytes the response has.
struct Row {
    method: Method,
    path: String,
    shape: Option<Shape>,
    bytes: usize,
}

fn rows(sizes: &[usize]) -> Vec<Row> {
    let mut rows = Vec::new();
    for (index, shape) in Shape::ALL.into_iter().enumerate() {
        for size in sizes.iter().copied() {
            rows.push(Row {
                method: Method::GET,
                path: format!("/body/{index}/{size}"),
                shape: Some(shape),
                bytes: size,
            });
        }
    }
    rows
}

fn rows_without_a_body() -> Vec<Row> {
    let row = |method, path: &str| Row {
        method,
        path: path.to_owned(),
        shape: None,
        bytes: 0,
    };
    let heads = rows(&[0, 13, 100 * 1024]);
    heads
        .into_iter()
        .map(|head| row(Method::HEAD, &head.path))
        .chain([
            row(Method::GET, "/no-content"),
            row(Method::GET, "/not-modified"),
            row(Method::HEAD, "/not-modified"),
        ])
        .collect()
}

async fn next(completions: &mut Completions) -> Completion {
    let next = in_time(completions.recv()).await;
    next.expect("the app keeps its end")
}

/// Sends the rows over one connection, one after the other; how many they were.
async fn check(protocol: Protocol, socket: Socket, privacy: Privacy, rows: Vec<Row>) -> usize {
    let (app, mut completions, handle) = app();
    let stream = connect_to_server(socket, privacy, app).await;
    let mut client = Client::new(protocol, stream).await;
    for row in &rows {
        let at = format!(
            "{protocol:?} {socket:?} {privacy:?} {} {} {:?}",
            row.method, row.path, row.shape
        );
        let response = client.send(row.method.clone(), &row.path).await;
        let collected = in_time(response.into_body().collect()).await;
        let collected = collected.unwrap();
        if row.shape == Some(Shape::Trailers) {
            assert!(collected.trailers().is_some(), "{at}");
        }
        assert_eq!(collected.to_bytes().len(), row.bytes, "{at}");

        let completion = next(&mut completions).await;
        assert_eq!(completion.delivery(), Delivery::Complete, "{at}");
        assert_eq!(completion.level(), Level::Flushed, "{at}");
        assert_eq!(completion.body_bytes(), row.bytes as u64, "{at}");
        assert!(client.is_open(), "{at}");
    }
    handle.wait_idle().await;
    assert!(completions.try_recv().is_err(), "each fires once");
    rows.len()
}

async fn check_everywhere(rows: impl Fn() -> Vec<Row>) -> usize {
    let mut count = 0;
    for protocol in [Protocol::Http1, Protocol::Http2] {
        for socket in [Socket::Tcp, Socket::Unix] {
            for privacy in [Privacy::Plain, Privacy::Tls] {
                count += check(protocol, socket, privacy, rows()).await;
            }
        }
    }
    count
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_of_every_shape_and_size_fires_once_as_sent_over_every_transport() {
    let count = check_everywhere(|| rows(&SIZES)).await;
    assert_eq!(count, 2 * 2 * 2 * Shape::ALL.len() * SIZES.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_response_that_has_no_body_fires_once_as_sent_over_every_transport() {
    let count = check_everywhere(rows_without_a_body).await;
    assert_eq!(count, 2 * 2 * 2 * (5 * 3 + 3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_streams_at_once_on_one_connection_each_fire_once_as_sent() {
    for privacy in [Privacy::Plain, Privacy::Tls] {
        let (app, mut completions, handle) = app();
        let stream = connect_to_server(Socket::Tcp, privacy, app).await;
        let client = Client::new(Protocol::Http2, stream).await;
        let Client::Http2(client) = client else {
            unreachable!("it was asked for HTTP/2")
        };
        let mut requests = tokio::task::JoinSet::new();
        let mut expected = Vec::new();
        for round in 0..5 {
            let sizes: Vec<_> = SIZES[..6].iter().map(|size| size + round).collect();
            for row in rows(&sizes) {
                expected.push(row.bytes as u64);
                let mut client = Client::Http2(client.clone());
                requests.spawn(async move {
                    let response = client.send(row.method, &row.path).await;
                    let body = response.into_body().collect().await.unwrap();
                    assert_eq!(body.to_bytes().len(), row.bytes);
                });
            }
        }
        assert_eq!(expected.len(), 150);
        let mut sent = Vec::new();
        for _ in 0..expected.len() {
            let completion = next(&mut completions).await;
            assert_eq!(completion.delivery(), Delivery::Complete);
            assert_eq!(completion.level(), Level::Flushed);
            sent.push(completion.body_bytes());
        }
        expected.sort_unstable();
        sent.sort_unstable();
        assert_eq!(sent, expected);
        while let Some(request) = requests.join_next().await {
            request.unwrap();
        }
        assert!(!client.is_closed());
        handle.wait_idle().await;
        assert!(completions.try_recv().is_err(), "each fires once");
    }
}

#[tokio::test]
async fn responses_that_end_with_their_connection_are_sent() {
    for (index, shape) in Shape::ALL.into_iter().enumerate() {
        for (version, header) in [("1.0", ""), ("1.1", "connection: close\r\n")] {
            for size in [0, 13, 100 * 1024] {
                let (app, mut completions, _) = app();
                let mut stream = connect_to_server(Socket::Tcp, Privacy::Plain, app).await;
                let request =
                    format!("GET /body/{index}/{size} HTTP/{version}\r\nhost: a\r\n{header}\r\n");
                stream.write_all(request.as_bytes()).await.unwrap();
                let mut response = Vec::new();
                in_time(stream.read_to_end(&mut response)).await.unwrap();
                let completion = next(&mut completions).await;
                let at = format!("HTTP/{version} {shape:?} {size}");
                assert_eq!(completion.delivery(), Delivery::Complete, "{at}");
                assert_eq!(completion.level(), Level::Flushed, "{at}");
                assert_eq!(completion.body_bytes(), size as u64, "{at}");
            }
        }
    }
}

#[tokio::test]
async fn pipelined_responses_fire_once_each_as_sent() {
    let (app, mut completions, handle) = app();
    let mut stream = connect_to_server(Socket::Tcp, Privacy::Plain, app).await;
    let mut requests = String::new();
    let mut expected = Vec::new();
    for row in rows(&[0, 13, 255, 256, 1024, 30_000]) {
        requests += &format!("GET {} HTTP/1.1\r\nhost: a\r\n\r\n", row.path);
        expected.push(row.bytes as u64);
    }
    requests += "GET /no-content HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    expected.push(0);
    stream.write_all(requests.as_bytes()).await.unwrap();
    in_time(stream.read_to_end(&mut Vec::new())).await.unwrap();
    handle.wait_idle().await;
    let mut sent = Vec::new();
    while let Ok(completion) = completions.try_recv() {
        assert_eq!(completion.delivery(), Delivery::Complete);
        sent.push(completion.body_bytes());
    }
    assert_eq!(sent, expected, "in the order of the requests");
}

/// An upgrade is answered, and its callbacks do not wait for the end of what follows.
#[tokio::test]
async fn an_upgrade_fires_while_the_upgraded_connection_lives() {
    let (sender, mut completions) = mpsc::unbounded_channel::<Completion>();
    let upgrade = get(move |request: axum::extract::Request| async move {
        defer(move |completion: Completion| async move { sender.send(completion) });
        tokio::spawn(async move {
            let upgraded = hyper::upgrade::on(request).await.unwrap();
            let mut upgraded = TokioIo::new(upgraded);
            let mut byte = [0];
            upgraded.read_exact(&mut byte).await.unwrap();
            upgraded.write_all(&byte).await.unwrap();
        });
        Response::builder()
            .status(StatusCode::SWITCHING_PROTOCOLS)
            .header("connection", "upgrade")
            .header("upgrade", "echo")
            .body(Body::empty())
            .unwrap()
    });
    let app = Router::new().route("/", upgrade).layer(DeferLayer::new());
    let mut stream = connect_to_server(Socket::Tcp, Privacy::Plain, app).await;
    let request = "GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let completion = next(&mut completions).await;
    assert_eq!(completion.delivery(), Delivery::Complete);
    assert_eq!(completion.level(), Level::Flushed);
    // The echo comes after the head of the 101.
    stream.write_all(b"!").await.unwrap();
    let mut bytes = Vec::new();
    in_time(stream.read_to_end(&mut bytes)).await.unwrap();
    assert!(bytes.ends_with(b"\r\n\r\n!"));
}

//! A server, clients, and a log of callbacks, for tests over real sockets.

// Each test file is a crate and uses only a part of this module.
#![allow(dead_code)]

pub(crate) mod beside;
pub(crate) mod events;
pub(crate) mod gate;
pub(crate) mod log;
pub(crate) mod planned_panics;
pub(crate) mod serving;
pub(crate) mod shapes;
pub(crate) mod subscriber;
pub(crate) mod websocket;
pub(crate) mod window;

use std::{
    convert::Infallible,
    future::Future,
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Mutex,
    time::Duration,
};

use axum::{body::Body, extract::Request, response::Response};
use axum_defer::{CallbackInfo, Completion, DeferObserver, LostReason, defer};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{HeaderMap, HeaderValue};
use http_body::Frame;
use http_body_util::Full;
use hyper::client::conn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinHandle,
};
use tower::Service;

/// Fails after a timeout that is far above the duration of any test.
pub(crate) async fn in_time<F: Future>(future: F) -> F::Output {
    match tokio::time::timeout(Duration::from_secs(60), future).await {
        Ok(output) => output,
        Err(_) => panic!("the test hangs"),
    }
}

/// Listens on a free port of 127.0.0.1.
pub(crate) async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// Waits until the server refuses connections, because its shutdown has begun.
pub(crate) async fn until_refused(address: SocketAddr) {
    in_time(async {
        while TcpStream::connect(address).await.is_ok() {
            tokio::task::yield_now().await;
        }
        // Tasks that do not wait end here, because the runtime has one thread.
        for _ in 0..1_000 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// A server of `axum::serve` on a free port of 127.0.0.1. Dropping it stops the server.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    task: JoinHandle<io::Result<()>>,
}

impl Server {
    pub(crate) async fn start<S>(service: S) -> Self
    where
        S: Service<Request, Response = Response, Error = Infallible>,
        S: Clone + Send + Sync + 'static,
        S::Future: Send,
    {
        let (listener, address) = listen().await;
        let make_service = tower::make::Shared::new(service);
        let task = tokio::spawn(async move { axum::serve(listener, make_service).await });
        Self { address, task }
    }

    pub(crate) async fn raw(&self) -> RawClient {
        RawClient::connect(self.address).await
    }

    pub(crate) async fn http1(&self) -> conn::http1::SendRequest<Full<Bytes>> {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let (client, connection) = conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        client
    }

    /// Connects with HTTP/2 and prior knowledge.
    pub(crate) async fn http2(&self) -> conn::http2::SendRequest<Full<Bytes>> {
        http2(self.address).await
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub(crate) async fn http2(address: SocketAddr) -> conn::http2::SendRequest<Full<Bytes>> {
    let stream = TcpStream::connect(address).await.unwrap();
    let (client, connection) = conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);
    client
}

/// Returns a request without a body, for clients of hyper and for `oneshot`.
pub(crate) fn request<B: Default>(method: &str, path: &str) -> http::Request<B> {
    http::Request::builder()
        .method(method)
        .uri(format!("http://localhost{path}"))
        .body(B::default())
        .unwrap()
}

pub(crate) fn get<B: Default>(path: &str) -> http::Request<B> {
    request("GET", path)
}

/// Creates a directory with one file. The file is written atomically, because tests run concurrently.
pub(crate) fn directory_with(directory: &str, file: &str, contents: &[u8]) -> PathBuf {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _alone = ONE_AT_A_TIME.lock().unwrap();
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(directory);
    std::fs::create_dir_all(&directory).unwrap();
    let whole = directory.join(file);
    if !whole.exists() {
        let part = directory.join(std::process::id().to_string());
        std::fs::write(&part, contents).unwrap();
        std::fs::rename(part, whole).unwrap();
    }
    directory
}

/// A client that sends and receives raw HTTP/1.
pub(crate) struct RawClient {
    stream: TcpStream,
    /// Received bytes that are not part of a returned response.
    received: Vec<u8>,
}

/// A response as it was received.
#[derive(Debug)]
pub(crate) struct RawResponse {
    pub(crate) status: u16,
    pub(crate) head: String,
    /// The body with its chunk framing, if any.
    pub(crate) body: Vec<u8>,
    /// `true` if the body has the length that its framing declares.
    pub(crate) whole: bool,
}

impl RawClient {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        Self {
            stream: TcpStream::connect(address).await.unwrap(),
            received: Vec::new(),
        }
    }

    pub(crate) async fn send(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).await.unwrap();
    }

    /// Sends a GET over HTTP/1.1 that keeps the connection open.
    pub(crate) async fn get(&mut self, path: &str) {
        self.send(&format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n"))
            .await;
    }

    /// Reads one response. `None` if the server closed the connection without one.
    pub(crate) async fn response(&mut self, to_head: bool) -> Option<RawResponse> {
        let head_length = loop {
            if let Some(end) = find(&self.received, b"\r\n\r\n") {
                break end + 4;
            }
            if !self.receive().await {
                return None;
            }
        };
        let head: Vec<u8> = self.received.drain(..head_length).collect();
        let head = String::from_utf8(head).unwrap();
        let status: u16 = head.split(' ').nth(1).unwrap().parse().unwrap();
        let header = |name: &str| {
            head.lines().find_map(|line| {
                let (key, value) = line.split_once(": ")?;
                key.eq_ignore_ascii_case(name).then(|| value.to_owned())
            })
        };
        let framing = if to_head || matches!(status, 100..=199 | 204 | 304) {
            Framing::Length(0)
        } else if header("transfer-encoding").is_some() {
            Framing::Chunks
        } else if let Some(length) = header("content-length") {
            Framing::Length(length.parse().unwrap())
        } else {
            Framing::Close
        };
        loop {
            if let Some(length) = framing.length(&self.received) {
                let body = self.received.drain(..length).collect();
                return Some(RawResponse {
                    status,
                    head,
                    body,
                    whole: true,
                });
            }
            if !self.receive().await {
                return Some(RawResponse {
                    status,
                    head,
                    body: std::mem::take(&mut self.received),
                    whole: matches!(framing, Framing::Close),
                });
            }
        }
    }

    /// Reads until `text` has arrived.
    pub(crate) async fn read_until(&mut self, text: &str) {
        while find(&self.received, text.as_bytes()).is_none() {
            assert!(self.receive().await, "closed before {text:?}");
        }
    }

    /// Reads until the server closes.
    pub(crate) async fn read_to_end(mut self) -> Vec<u8> {
        while self.receive().await {}
        self.received
    }

    /// Resets the connection with an RST.
    pub(crate) fn reset(self) {
        SockRef::from(&self.stream)
            .set_linger(Some(Duration::ZERO))
            .unwrap();
    }

    /// Returns the connection, for a protocol other than HTTP.
    pub(crate) fn into_stream(self) -> TcpStream {
        self.stream
    }

    async fn receive(&mut self) -> bool {
        // A server that drops a connection with unread input resets it.
        let received = in_time(self.stream.read_buf(&mut self.received)).await;
        matches!(received, Ok(1..))
    }
}

enum Framing {
    Length(usize),
    Chunks,
    Close,
}

impl Framing {
    /// Returns the length of the body with its framing, after all of it has arrived.
    fn length(&self, received: &[u8]) -> Option<usize> {
        match self {
            Self::Length(length) => (received.len() >= *length).then_some(*length),
            Self::Close => None,
            Self::Chunks => {
                let mut position = 0;
                loop {
                    let line = find(&received[position..], b"\r\n")?;
                    let size = std::str::from_utf8(&received[position..position + line]).unwrap();
                    let size = usize::from_str_radix(size, 16).unwrap();
                    if size == 0 {
                        // Trailers, if any, are between the last chunk and an empty line.
                        let end = find(&received[position + line..], b"\r\n\r\n")?;
                        return Some(position + line + end + 4);
                    }
                    position += line + 2 + size + 2;
                    if position > received.len() {
                        return None;
                    }
                }
            }
        }
    }
}

fn find(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    bytes
        .windows(needle.len())
        .position(|window| window == needle)
}

/// The end of one callback.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum What {
    Ran(Completion),
    Skipped(Completion),
    Lost(LostReason),
}

impl What {
    pub(crate) fn completion(&self) -> Completion {
        match self {
            Self::Ran(completion) | Self::Skipped(completion) => completion.clone(),
            Self::Lost(reason) => panic!("lost: {reason}"),
        }
    }
}

/// A recorder of the ends of callbacks: as an observer, and from inside of callbacks.
#[derive(Clone)]
pub(crate) struct Log(mpsc::UnboundedSender<(String, What)>);

pub(crate) struct Events(mpsc::UnboundedReceiver<(String, What)>);

impl Log {
    pub(crate) fn new() -> (Self, Events) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self(sender), Events(receiver))
    }

    /// Defers a callback that records its run under this name.
    #[track_caller]
    pub(crate) fn defer(&self, name: &str) -> axum_defer::DeferredCallback {
        let log = self.clone();
        let written = name.to_owned();
        defer(move |completion: Completion| async move {
            log.ran(&written, completion);
        })
        .name(name.to_owned())
    }

    pub(crate) fn ran(&self, name: &str, completion: Completion) {
        self.write(name, What::Ran(completion));
    }

    fn write(&self, name: &str, what: What) {
        // The test may have ended already.
        let _ = self.0.send((name.to_owned(), what));
    }
}

impl DeferObserver for Log {
    fn skipped(&self, callback: &CallbackInfo<'_>, completion: &Completion) {
        self.write(
            callback.name().unwrap_or("unnamed"),
            What::Skipped(completion.clone()),
        );
    }

    fn lost(&self, callback: &CallbackInfo<'_>, reason: LostReason) {
        self.write(callback.name().unwrap_or("unnamed"), What::Lost(reason));
    }
}

impl Events {
    pub(crate) async fn next(&mut self) -> (String, What) {
        in_time(self.0.recv()).await.unwrap()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the events that were not returned before.
    pub(crate) fn so_far(&mut self) -> Vec<(String, What)> {
        std::iter::from_fn(|| self.0.try_recv().ok()).collect()
    }

    /// Returns the names of the callbacks that ran. Panics on any other event.
    pub(crate) fn ran(&mut self) -> Vec<String> {
        self.so_far()
            .into_iter()
            .map(|(name, what)| match what {
                What::Ran(_) => name,
                other => panic!("{name}: {other:?}"),
            })
            .collect()
    }
}

/// Returns a body of these frames.
pub(crate) fn frames<I>(frames: I) -> Body
where
    I: IntoIterator<Item = Result<Frame<Bytes>, io::Error>>,
    I::IntoIter: Send + 'static,
{
    Body::new(http_body_util::StreamBody::new(stream::iter(frames)))
}

pub(crate) fn data(text: &'static str) -> Result<Frame<Bytes>, io::Error> {
    Ok(Frame::data(Bytes::from_static(text.as_bytes())))
}

pub(crate) fn trailers() -> Result<Frame<Bytes>, io::Error> {
    let mut trailers = HeaderMap::new();
    trailers.insert("checksum", HeaderValue::from_static("42"));
    Ok(Frame::trailers(trailers))
}

pub(crate) fn stream_of<const N: usize>(chunks: [&'static str; N]) -> Body {
    Body::from_stream(stream::iter(chunks.map(Ok::<_, io::Error>)))
}

/// Returns a body of one chunk and `end`, with a pause in between, because hyper would otherwise close
/// the connection before it flushes.
pub(crate) fn hello_and_then<T>(end: impl FnOnce() -> T + Send + 'static) -> Body
where
    T: IntoIterator<Item = Result<&'static str, io::Error>>,
    T::IntoIter: Send + 'static,
{
    let end = stream::once(async {
        tokio::task::yield_now().await;
        stream::iter(end())
    });
    Body::from_stream(stream::iter([Ok("hello")]).chain(end.flatten()))
}

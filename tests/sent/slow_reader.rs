//! A client that stops reading: nothing fires while bytes of the response are in the process.
//!
//! No test here waits by the clock. Over a connection in memory the test opens the window by
//! hand, and the runtime has one thread, so it knows when the server is stuck. Over real sockets
//! the server's IO tells that the kernel takes no more, and the client counts what it has.

#![allow(clippy::unwrap_used)]

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::{Path, Request},
    routing::get,
    serve::Listener,
};
use axum_defer::{Completion, DeferLayer, Delivery, Level, defer, serve};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::{mpsc, watch},
};

use crate::support::{
    in_time,
    shapes::Shape,
    window::{Window, serve_window},
};

type Fired = mpsc::UnboundedReceiver<(usize, Completion)>;

/// Answers `/{shape}/{size}`, and reports the size with its completion.
fn app() -> (Router, Fired) {
    let (sender, fired) = mpsc::unbounded_channel();
    let app = Router::new()
        .route(
            "/{shape}/{size}",
            get(move |Path((shape, size)): Path<(usize, usize)>| {
                let sender = sender.clone();
                async move {
                    defer(move |completion: Completion| async move {
                        sender.send((size, completion)).unwrap();
                    })
                    .always();
                    Shape::ALL[shape].response(size)
                }
            }),
        )
        .layer(DeferLayer::new());
    (app, fired)
}

fn path(shape: Shape, size: usize) -> String {
    let index = Shape::ALL.iter().position(|known| *known == shape);
    format!("/{}/{size}", index.unwrap())
}

fn request(shape: Shape, size: usize) -> http::Request<Empty<bytes::Bytes>> {
    http::Request::get(format!("http://a{}", path(shape, size)))
        .header("te", "trailers")
        .body(Empty::new())
        .unwrap()
}

fn send_http1_request(window: &Window, shape: Shape, size: usize) {
    let request = format!(
        "GET {} HTTP/1.1\r\nhost: a\r\nte: trailers\r\n\r\n",
        path(shape, size)
    );
    window.send(request.as_bytes());
}

/// Whether these HTTP/1 bytes are one whole response.
fn is_whole_http1_response(bytes: &[u8], shape: Shape, size: usize) -> bool {
    let end = b"\r\n\r\n";
    let head = bytes.windows(end.len()).position(|part| part == end);
    match shape {
        Shape::OneFrame | Shape::ManyFrames | Shape::ContentLength => {
            head.is_some_and(|head| bytes.len() == head + end.len() + size)
        }
        Shape::Chunked => bytes.ends_with(b"\r\n0\r\n\r\n"),
        Shape::Trailers => bytes.ends_with(b"checked: yes\r\n\r\n"),
    }
}

#[tokio::test]
async fn over_http1_nothing_fires_before_the_last_byte_was_accepted_and_flushed() {
    for vectored in [true, false] {
        for shape in Shape::ALL {
            for size in [13, 255, 1024, 100 * 1024] {
                let window = Window::new(0).with_vectored_writes(vectored);
                let (app, mut fired) = app();
                let connection = serve_window(&window, app);
                send_http1_request(&window, shape, size);
                window.settle().await;

                let step = size / 40 + 7;
                // The flush counts, not the write.
                window.shut_flush(true);
                while !is_whole_http1_response(&window.accepted(), shape, size) {
                    assert!(window.is_stuck(), "the server waits for the window");
                    assert!(fired.try_recv().is_err(), "{shape:?} {size} fired early");
                    window.open_by(step);
                    window.settle().await;
                }
                assert!(window.is_stuck(), "the server waits for the flush");
                assert!(fired.try_recv().is_err(), "{shape:?} {size} fired early");
                window.shut_flush(false);
                window.settle().await;
                let (_, completion) = fired.try_recv().expect("it fires when it is flushed");
                assert_eq!(completion.delivery(), Delivery::Complete);
                assert_eq!(completion.level(), Level::Flushed);
                assert_eq!(completion.body_bytes(), size as u64);
                assert!(fired.try_recv().is_err() && !connection.is_finished());
            }
        }
    }
}

/// The bytes of one HTTP/2 response in what the transport has accepted.
#[derive(Default)]
struct Accepted {
    data: usize,
    ended: bool,
}

/// Reads the frames, the last of which may be cut off, by stream.
fn accepted_by_stream(mut bytes: &[u8]) -> HashMap<u32, Accepted> {
    let mut streams: HashMap<u32, Accepted> = HashMap::new();
    while let Some((head, rest)) = bytes.split_at_checked(9) {
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let (kind, flags) = (head[3], head[4]);
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        let accepted = streams.entry(stream).or_default();
        if kind == 0 {
            accepted.data += length.min(rest.len());
        }
        let is_whole = rest.len() >= length;
        accepted.ended |= is_whole && kind <= 1 && flags & 1 == 1;
        if !is_whole {
            break;
        }
        bytes = &rest[length..];
    }
    streams
}

async fn http2_client<Io>(
    io: Io,
    connection_window: u32,
) -> hyper::client::conn::http2::SendRequest<Empty<bytes::Bytes>>
where
    Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (client, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(65_535)
        .initial_connection_window_size(connection_window)
        .handshake(TokioIo::new(io))
        .await
        .unwrap();
    tokio::spawn(connection);
    client
}

#[tokio::test]
async fn over_http2_no_stream_fires_before_its_own_last_byte_was_accepted_and_flushed() {
    for vectored in [true, false] {
        let window = Window::new(0).with_vectored_writes(vectored);
        let (app, mut fired) = app();
        let connection = serve_window(&window, app);
        let mut client = http2_client(window.client_end(), 1024 * 1024).await;

        // Each size stands for its stream, in the order of the requests.
        let mut streams = HashMap::new();
        let mut responses = tokio::task::JoinSet::new();
        let mut next_stream = 1;
        for base in [10, 250, 256, 1000, 5_000, 40_000] {
            for (index, shape) in Shape::ALL.into_iter().enumerate() {
                let size = base + index;
                streams.insert(size, (next_stream, shape));
                next_stream += 2;
                client.ready().await.unwrap();
                let response = client.send_request(request(shape, size));
                responses.spawn(async move {
                    let body = response.await.unwrap().into_body();
                    assert_eq!(body.collect().await.unwrap().to_bytes().len(), size);
                });
            }
        }
        window.settle().await;

        let mut counted = 0;
        while counted < streams.len() {
            assert!(window.is_stuck(), "the server waits for the window");
            window.shut_flush(true);
            window.open_by(997);
            window.settle().await;
            assert!(fired.try_recv().is_err(), "the flush counts, not the write");
            window.shut_flush(false);
            window.settle().await;
            while let Ok((size, completion)) = fired.try_recv() {
                counted += 1;
                let (stream, shape) = streams[&size];
                let now = accepted_by_stream(&window.accepted());
                assert_eq!(
                    now[&stream].data, size,
                    "{shape:?} {size} fired before its body was out"
                );
                if matches!(shape, Shape::OneFrame | Shape::ManyFrames) {
                    assert!(now[&stream].ended);
                }
                assert_eq!(completion.delivery(), Delivery::Complete);
                assert_eq!(completion.body_bytes(), size as u64);
            }
        }
        while let Some(response) = responses.join_next().await {
            response.unwrap();
        }
        assert!(!connection.is_finished());
        assert!(fired.try_recv().is_err(), "each fires once");
    }
}

#[tokio::test]
async fn a_connection_that_breaks_with_bytes_unsent_is_aborted_once() {
    for shape in Shape::ALL {
        for flushed in [true, false] {
            let window = Window::new(if flushed { 10_000 } else { usize::MAX });
            window.shut_flush(!flushed);
            let (app, mut fired) = app();
            let connection = serve_window(&window, app);
            send_http1_request(&window, shape, 20_000);
            window.settle().await;
            assert!(window.is_stuck() && fired.try_recv().is_err());

            window.break_off();
            window.settle().await;
            let (_, completion) = fired.try_recv().expect("the end of the IO settles it");
            assert_eq!(completion.delivery(), Delivery::Aborted, "{shape:?}");
            assert_eq!(completion.level(), Level::Flushed);
            assert!(fired.try_recv().is_err() && connection.is_finished());
        }
    }
}

#[tokio::test]
async fn a_stream_reset_while_others_live_on_is_aborted_alone_and_once() {
    for shape in Shape::ALL {
        let window = Window::new(usize::MAX);
        let (app, mut fired) = app();
        let connection = serve_window(&window, app);
        let mut client = http2_client(window.client_end(), 1024 * 1024).await;
        // More than the stream's window, which nobody reads empty.
        let unwanted = client.send_request(request(shape, 100_000)).await.unwrap();
        let wanted = client.send_request(request(shape, 200)).await.unwrap();
        window.settle().await;
        let first = fired.try_recv().map(|(size, _)| size);
        assert_eq!(first, Ok(200), "the other one waits for its client");

        drop(unwanted);
        window.settle().await;
        let (size, completion) = fired.try_recv().expect("the reset ends it");
        assert_eq!((size, completion.delivery()), (100_000, Delivery::Aborted));
        assert!(completion.body_bytes() < 100_000);

        let body = wanted.into_body().collect().await.unwrap();
        assert_eq!(body.to_bytes().len(), 200);
        let another = client.send_request(request(shape, 300)).await.unwrap();
        another.into_body().collect().await.unwrap();
        window.settle().await;
        let (size, completion) = fired.try_recv().unwrap();
        assert_eq!((size, completion.delivery()), (300, Delivery::Complete));
        assert!(fired.try_recv().is_err() && !connection.is_finished());
    }
}

/// A listener with small socket buffers, whose connections tell when the kernel takes no more.
struct Stalling {
    listener: TcpListener,
    stalled: watch::Sender<bool>,
}

struct StallingIo {
    stream: TcpStream,
    stalled: watch::Sender<bool>,
}

impl Listener for Stalling {
    type Io = StallingIo;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (StallingIo, SocketAddr) {
        let (stream, address) = Listener::accept(&mut self.listener).await;
        let stalled = self.stalled.clone();
        (StallingIo { stream, stalled }, address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

impl AsyncRead for StallingIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for StallingIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.stalled.send_replace(polled.is_pending());
        polled
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.stalled.send_replace(polled.is_pending());
        polled
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// A client's socket that counts what was read from it.
struct Counting {
    stream: TcpStream,
    read: Arc<AtomicUsize>,
}

impl AsyncRead for Counting {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.read.fetch_add(buf.filled().len() - before, SeqCst);
        polled
    }
}

impl AsyncWrite for Counting {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

const TOTAL: usize = 16 * 1024 * 1024;

/// What a real connection to a server of one 16 MiB frame comes with.
struct Slow {
    stream: Counting,
    read: Arc<AtomicUsize>,
    /// What the two kernels' buffers hold between server and client, at most.
    in_kernel: usize,
    stalled: watch::Receiver<bool>,
    /// The completion, and what the client had read then.
    fired: mpsc::UnboundedReceiver<(Completion, usize)>,
    handle: axum_defer::DeferHandle,
}

async fn slow_connection() -> Slow {
    let listening = TcpSocket::new_v4().unwrap();
    listening.set_send_buffer_size(128 * 1024).unwrap();
    let send_buffer = listening.send_buffer_size().unwrap() as usize;
    listening.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = listening.listen(8).unwrap();
    let address = listener.local_addr().unwrap();
    let read = Arc::new(AtomicUsize::new(0));
    let (sender, fired) = mpsc::unbounded_channel();
    let read_by_client = read.clone();
    let layer = DeferLayer::new();
    let handle = layer.handle();
    let app = Router::new()
        .route(
            "/",
            get(move || {
                let sender = sender.clone();
                let read = read_by_client.clone();
                async move {
                    defer(move |completion: Completion| async move {
                        sender.send((completion, read.load(SeqCst))).unwrap();
                    })
                    .always();
                    Body::from(vec![b'x'; TOTAL])
                }
            }),
        )
        .layer(layer);
    let (stalled_sender, stalled) = watch::channel(false);
    let listener = Stalling {
        listener,
        stalled: stalled_sender,
    };
    tokio::spawn(serve(listener, app).into_future());

    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(128 * 1024).unwrap();
    let receive_buffer = socket.recv_buffer_size().unwrap() as usize;
    // Dropped with bytes unread, or with this, the client resets.
    SockRef::from(&socket)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
    let stream = socket.connect(address).await.unwrap();
    Slow {
        stream: Counting {
            stream,
            read: read.clone(),
        },
        read,
        in_kernel: send_buffer + receive_buffer,
        stalled,
        fired,
        handle,
    }
}

impl Slow {
    /// Sends a request over HTTP/1, and reads nothing until the kernel takes no more.
    async fn request_without_reading(&mut self) {
        let request = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";
        self.stream.write_all(request).await.unwrap();
        self.stalled.wait_for(|stalled| *stalled).await.unwrap();
    }
}

fn assert_all_but_the_kernel_s_was_read((completion, read): (Completion, usize), in_kernel: usize) {
    assert_eq!(completion.delivery(), Delivery::Complete);
    assert_eq!(completion.body_bytes(), TOTAL as u64);
    assert!(
        read + in_kernel >= TOTAL,
        "fired when the client had {read} bytes, and the kernel {in_kernel} at most"
    );
}

#[tokio::test]
async fn over_a_socket_http1_fires_when_all_but_the_kernel_s_buffers_is_with_the_client() {
    in_time(async {
        let mut slow = slow_connection().await;
        slow.request_without_reading().await;
        assert_eq!(slow.handle.pending(), 1, "the client has read nothing yet");

        let mut buffer = vec![0; 64 * 1024];
        while slow.read.load(SeqCst) < TOTAL {
            assert_ne!(slow.stream.read(&mut buffer).await.unwrap(), 0);
        }
        let fired = slow.fired.recv().await.unwrap();
        assert_all_but_the_kernel_s_was_read(fired, slow.in_kernel);
    })
    .await;
}

#[tokio::test]
async fn over_a_socket_http2_fires_when_all_but_the_kernel_s_buffers_is_with_the_client() {
    in_time(async {
        let mut slow = slow_connection().await;
        let mut client = http2_client(slow.stream, 65_535).await;
        let request = Request::get("http://a/").body(Empty::new()).unwrap();
        let mut body = client.send_request(request).await.unwrap().into_body();
        // A window is all that the client will ever get while it does not read.
        let mut received = 0;
        for _ in 0..8 {
            received += body
                .frame()
                .await
                .unwrap()
                .unwrap()
                .into_data()
                .unwrap()
                .len();
            assert_eq!(slow.handle.pending(), 1);
        }
        while let Some(frame) = body.frame().await {
            received += frame.unwrap().into_data().unwrap().len();
        }
        assert_eq!(received, TOTAL);
        let fired = slow.fired.recv().await.unwrap();
        assert_all_but_the_kernel_s_was_read(fired, slow.in_kernel);
    })
    .await;
}

#[tokio::test]
async fn over_a_socket_a_reset_instead_of_reading_is_aborted_once() {
    in_time(async {
        let mut slow = slow_connection().await;
        slow.request_without_reading().await;
        assert_eq!(slow.handle.pending(), 1);

        drop(slow.stream);
        let (completion, _) = slow.fired.recv().await.unwrap();
        assert_eq!(completion.delivery(), Delivery::Aborted);
        assert_eq!(completion.level(), Level::Flushed);
        assert!(completion.body_bytes() < TOTAL as u64);
        slow.handle.wait_idle().await;
        assert!(slow.fired.try_recv().is_err());
    })
    .await;
}

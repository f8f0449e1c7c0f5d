//! HTTP/2 streams that the client resets at the worst of moments: no callback waits for a flush
//! that nothing will cause.

use std::{convert::Infallible, future::IntoFuture, sync::Arc, time::Duration};

use axum::{Router, body::Body, response::Response, routing::get};
use axum_defer::{Completion, DeferLayer, Delivery, Level, defer};
use http_body::Frame;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket},
    sync::{Notify, mpsc},
};

use crate::support::window::{Window, serve_window};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];

fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).expect("short frames only");
    let mut frame = vec![0, 0, length, kind, flags, 0, 0, 0, stream];
    frame.extend_from_slice(payload);
    frame
}

/// HEADERS of `GET http://a/`, all of the request.
fn get_request(stream: u8) -> Vec<u8> {
    // :method GET, :scheme http, :path / are in HPACK's static table.
    frame(1, 5, stream, &[0x82, 0x86, 0x84, 0x41, 0x01, b'a'])
}

fn reset(stream: u8) -> Vec<u8> {
    frame(3, 0, stream, &[0, 0, 0, 8])
}

#[tokio::test]
async fn reset_before_response_is_aborted() {
    let (sender, mut completions) = mpsc::unbounded_channel::<Completion>();
    let app = Router::new()
        .route(
            "/",
            get(move || {
                let sender = sender.clone();
                async move {
                    defer(move |completion: Completion| async move { sender.send(completion) });
                }
            }),
        )
        .layer(DeferLayer::new());
    let window = Window::new(usize::MAX);
    let connection = serve_window(&window, app);
    window.send(&[PREFACE, SETTINGS, &get_request(1), &reset(1)].concat());
    window.settle().await;

    let completion = completions
        .try_recv()
        .expect("it fired, though nothing more was written");
    assert_eq!(completion.delivery(), Delivery::Aborted);
    assert_eq!(completion.level(), Level::Flushed);
    assert!(!connection.is_finished());
}

/// Answers with one frame of this many bytes, and trailers.
fn one_frame(length: usize, sender: mpsc::UnboundedSender<Completion>) -> Router {
    Router::new()
        .route(
            "/",
            get(move || {
                let sender = sender.clone();
                async move {
                    defer(move |completion: Completion| async move { sender.send(completion) })
                        .always();
                    let frames = [
                        Frame::data(bytes::Bytes::from(vec![b'x'; length])),
                        Frame::trailers(http::HeaderMap::new()),
                    ];
                    let frames = frames.map(Ok::<_, Infallible>);
                    let frames = futures_util::stream::iter(frames);
                    Response::new(Body::new(http_body_util::StreamBody::new(frames)))
                }
            }),
        )
        .layer(DeferLayer::new())
}

/// SETTINGS with the largest frames and windows, and a window for the connection.
fn large_windows() -> Vec<u8> {
    let settings = [0, 5, 0, 0xff, 0xff, 0xff, 0, 4, 0x7f, 0xff, 0xff, 0xff];
    let window = frame(8, 0, 0, &0x7000_0000u32.to_be_bytes());
    [frame(4, 0, 0, &settings), window].concat()
}

#[tokio::test]
async fn trailers_after_partial_frame_abort() {
    const LENGTH: usize = 1 << 20;
    let (sender, mut completions) = mpsc::unbounded_channel();
    let window = Window::new(LENGTH / 2);
    let connection = serve_window(&window, one_frame(LENGTH, sender));
    window.send(&[PREFACE, &large_windows(), &get_request(1)].concat());
    window.settle().await;
    assert!(window.is_stuck());
    window.send(&reset(1));
    window.settle().await;
    assert!(completions.try_recv().is_err());
    window.open_for_ever();
    window.settle().await;

    let completion = completions.try_recv().expect("it is decided");
    assert_eq!(completion.delivery(), Delivery::Aborted);
    assert!(window.accepted_length() > LENGTH);
    assert!(!connection.is_finished());
}

/// The body has not ended, but its declared length is reached, and no trailers are queued.
#[tokio::test]
async fn reset_during_last_declared_byte_is_decided() {
    const LENGTH: usize = 1 << 20;
    let (sender, mut completions) = mpsc::unbounded_channel();
    let respond = move || {
        let sender = sender.clone();
        async move {
            defer(move |completion: Completion| async move { sender.send(completion) });
            let first = futures_util::stream::iter([Ok::<_, Infallible>(vec![b'x'; LENGTH])]);
            let rest = futures_util::stream::pending();
            let body = Body::from_stream(futures_util::StreamExt::chain(first, rest));
            ([(http::header::CONTENT_LENGTH, LENGTH)], body)
        }
    };
    let app = Router::new()
        .route("/", get(respond))
        .layer(DeferLayer::new());
    let window = Window::new(LENGTH / 2);
    let connection = serve_window(&window, app);
    window.send(&[PREFACE, &large_windows(), &get_request(1)].concat());
    window.settle().await;
    assert!(window.is_stuck());
    window.send(&reset(1));
    window.settle().await;
    assert!(completions.try_recv().is_err());
    window.open_for_ever();
    window.settle().await;

    let completion = completions.try_recv().expect("it is decided");
    assert_eq!(completion.delivery(), Delivery::Complete);
    assert_eq!(completion.body_bytes(), LENGTH as u64);
    assert!(!connection.is_finished());
}

#[tokio::test]
async fn trailers_after_partial_frame_abort_over_tcp() {
    const LENGTH: usize = 8 << 20;
    let (sender, mut completions) = mpsc::unbounded_channel();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(axum_defer::serve(listener, one_frame(LENGTH, sender)).into_future());
    let socket = TcpSocket::new_v4().expect("a socket");
    socket
        .set_recv_buffer_size(64 * 1024)
        .expect("a small buffer");
    let mut client = socket.connect(address).await.expect("a connection");
    let start = [PREFACE, &large_windows(), &get_request(1)].concat();
    client.write_all(&start).await.expect("it is sent");

    let mut received = 0;
    let mut buffer = vec![0; 64 * 1024];
    while received < LENGTH / 2 {
        received += client.read(&mut buffer).await.expect("a part");
    }
    client.write_all(&reset(1)).await.expect("it is sent");
    while received < LENGTH {
        received += client.read(&mut buffer).await.expect("a part");
    }
    let completion = tokio::time::timeout(Duration::from_secs(60), completions.recv()).await;
    let completion = completion.expect("it is decided").expect("a callback ran");
    assert_eq!(completion.delivery(), Delivery::Aborted);
    drop(client);
}

#[tokio::test]
async fn reset_and_ping_in_one_round_is_aborted() {
    let (sender, mut completions) = mpsc::unbounded_channel::<Completion>();
    let gate = Arc::new(Notify::new());
    let opened = gate.clone();
    let app = Router::new()
        .route(
            "/",
            get(move || {
                let (sender, gate) = (sender.clone(), gate.clone());
                async move {
                    defer(move |completion: Completion| async move { sender.send(completion) });
                    gate.notified().await;
                }
            }),
        )
        .layer(DeferLayer::new());
    let window = Window::new(usize::MAX);
    serve_window(&window, app);
    window.send(&[PREFACE, SETTINGS, &get_request(1)].concat());
    window.settle().await;
    // First the response enters h2's queue. Then h2 drops it, and writes the acknowledgment of the
    // ping instead.
    opened.notify_one();
    let ping = frame(6, 0, 0, &[7; 8]);
    window.send(&[&reset(1)[..], &ping].concat());
    window.settle().await;

    let completion = completions.try_recv().expect("the scope is decided");
    assert_eq!(completion.delivery(), Delivery::Aborted);
}

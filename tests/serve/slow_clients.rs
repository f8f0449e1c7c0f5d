//! The timeouts of connections, and slow clients at shutdown.
//!
//! The clock is paused, so the time that has passed shows which deadline was reached.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use axum::{
    Router,
    routing::{get, post},
};
use axum_defer::serve;
use http_body_util::BodyExt;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    net::TcpStream,
    time::Instant,
};

use crate::support::{
    self, in_time, listen,
    serving::{LONG, Serving, in_memory, settle},
};

const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const PING: u8 = 6;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

fn app() -> Router {
    Router::new()
        .route("/", get(|| async { "hello" }))
        .route("/", post(|body: String| async move { body }))
        .route(
            "/later",
            get(|| async {
                tokio::time::sleep(Duration::from_secs(60)).await;
                "later"
            }),
        )
}

/// A frame of HTTP/2.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// The beginning of an HTTP/2 connection whose client says nothing more.
fn preface() -> Vec<u8> {
    let mut preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    preface.extend(frame(4, 0, 0, &[]));
    preface
}

/// A request for `/later`, in the words of HPACK.
fn request_for_later(flags: u8) -> Vec<u8> {
    let mut fields = vec![0x82, 0x86, 0x04, 6];
    fields.extend(b"/later");
    fields.extend([0x41, 1, b'a']);
    frame(HEADERS, flags, 1, &fields)
}

/// A request for `/`.
fn get_request(flags: u8) -> Vec<u8> {
    frame(HEADERS, flags, 1, &[0x82, 0x86, 0x84, 0x41, 1, b'a'])
}

/// The kinds of the frames that were received.
fn kinds(mut received: &[u8]) -> Vec<u8> {
    let mut kinds = Vec::new();
    while let [a, b, c, kind, rest @ ..] = received {
        kinds.push(*kind);
        let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
        received = &rest[5 + length..];
    }
    kinds
}

async fn until_closed(client: &mut DuplexStream) -> Vec<u8> {
    let mut received = Vec::new();
    in_days(client.read_to_end(&mut received)).await.unwrap();
    received
}

/// Like `in_time`, for tests in which hours may pass at once.
async fn in_days<F: Future>(future: F) -> F::Output {
    let hung = Duration::from_secs(7 * 24 * 3600);
    tokio::time::timeout(hung, future).await.expect("it hung")
}

#[tokio::test(start_paused = true)]
async fn incomplete_heads_are_closed_at_shutdown() {
    let (server, connect) = Serving::in_memory(app(), LONG);
    let mut clients = Vec::new();
    for sent in [
        &b""[..],
        b"G",
        b"GET / HTTP/1.1\r\nhost: a\r\n",
        b"PRI * HTTP/2.0\r\n",
    ] {
        let mut client = connect.connect();
        client.write_all(sent).await.unwrap();
        clients.push(client);
    }
    // One request, and half of the next.
    let mut client = connect.connect();
    client.write_all(GET).await.unwrap();
    client.read_exact(&mut [0; 15]).await.unwrap();
    client.write_all(&GET[..20]).await.unwrap();
    clients.push(client);
    settle().await;

    let start = Instant::now();
    let report = in_days(server.stop()).await.unwrap();
    assert_eq!(start.elapsed(), Duration::ZERO);
    assert!(report.is_complete(), "{report}");
    for mut client in clients {
        let received = until_closed(&mut client).await;
        assert!(!received.starts_with(b"HTTP/1.1 4"), "no answer");
    }
}

#[tokio::test]
async fn half_a_head_does_not_delay_shutdown() {
    let (server, address) = Serving::start(app(), LONG).await;
    let mut client = TcpStream::connect(address).await.unwrap();
    client.write_all(&GET[..20]).await.unwrap();
    settle().await;
    let report = server.stopped().await;
    assert!(report.is_complete(), "{report}");
    assert_eq!(in_time(client.read(&mut [0; 9])).await.unwrap(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_request_before_the_signal_is_answered() {
    // The first request of its connection, and one after another.
    for before in [0, 1] {
        let (server, connect) = Serving::in_memory(app(), LONG);
        let mut client = connect.connect();
        for _ in 0..before {
            client.write_all(GET).await.unwrap();
            settle().await;
        }
        client.write_all(&GET[..20]).await.unwrap();
        settle().await;
        // The server gets to see neither before it sees both.
        client.write_all(&GET[20..]).await.unwrap();
        let report = server.stop();
        let received = until_closed(&mut client).await;
        let received = String::from_utf8(received).unwrap();
        assert_eq!(received.matches("hello").count(), before + 1, "{received}");
        assert!(in_days(report).await.unwrap().is_complete());
    }
}

#[tokio::test(start_paused = true)]
async fn shutdown_waits_for_a_service_to_be_ready() {
    // The second request waits for the end of the first.
    let app = Router::new().route(
        "/",
        get(|| async {
            tokio::time::sleep(Duration::from_secs(60)).await;
            "hello"
        }),
    );
    let (connect, listener) = in_memory();
    let app = tower::ServiceBuilder::new()
        .concurrency_limit(1)
        .service(app);
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let server = serve(listener, tower::make::Shared::new(app))
        .with_graceful_shutdown(async { stopped.await.unwrap() })
        .drain_timeout(LONG);
    let server = tokio::spawn(server.into_future());
    let mut clients = [connect.connect(), connect.connect()];
    for client in &mut clients {
        client.write_all(GET).await.unwrap();
        settle().await;
    }
    stop.send(()).unwrap();
    for client in &mut clients {
        let received = until_closed(client).await;
        assert!(received.ends_with(b"hello"));
    }
    assert!(in_days(server).await.unwrap().unwrap().is_complete());
}

#[tokio::test(start_paused = true)]
async fn shutdown_waits_for_request_bodies() {
    let head = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nhello";
    let (server, connect) = Serving::in_memory(app(), LONG);
    let mut client = connect.connect();
    client.write_all(head).await.unwrap();
    settle().await;
    let report = server.stop();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(!report.is_finished());
    client.write_all(b"world").await.unwrap();
    let received = until_closed(&mut client).await;
    assert!(received.ends_with(b"helloworld"));
    assert!(in_days(report).await.unwrap().is_complete());

    let (server, connect) = Serving::in_memory(app(), Duration::from_secs(10));
    let mut client = connect.connect();
    client.write_all(head).await.unwrap();
    settle().await;
    let start = Instant::now();
    let report = in_days(server.stop()).await.unwrap();
    assert_eq!(start.elapsed(), Duration::from_secs(9));
    assert_eq!(report.aborted_connections, 1);
    assert_eq!(until_closed(&mut client).await, b"");
}

#[tokio::test(start_paused = true)]
async fn silent_http2_clients_have_five_seconds() {
    let half_a_request = request_for_later(0);
    let whole_request = request_for_later(END_STREAM | END_HEADERS);
    for (sent, seconds) in [(&[][..], 5), (&half_a_request, 5), (&whole_request, 60)] {
        let (server, connect) = Serving::in_memory(app(), LONG);
        let mut client = connect.connect();
        client.write_all(&preface()).await.unwrap();
        client.write_all(sent).await.unwrap();
        settle().await;
        let start = Instant::now();
        let report = server.stop();
        let received = until_closed(&mut client).await;
        let waited = start.elapsed().as_secs();
        assert!((seconds..=seconds + 5).contains(&waited), "{waited}");
        let is_answered = received.windows(5).any(|part| part == b"later");
        assert_eq!(is_answered, seconds == 60);
        let report = in_days(report).await.unwrap();
        assert!(report.is_complete(), "{report}");
    }
}

#[tokio::test(start_paused = true)]
async fn shutdown_waits_for_slow_readers() {
    const SIZE: usize = 4 * 1024 * 1024;
    // In one piece, which the server takes at once, and sends as the client lets it.
    let app = Router::new().route("/", get(|| async { vec![b'x'; SIZE] }));
    for is_http2 in [false, true] {
        let (server, connect) = Serving::in_memory(app.clone(), LONG);
        let io = hyper_util::rt::TokioIo::new(connect.connect());
        let request = support::get::<http_body_util::Empty<&[u8]>>("/");
        let response = if is_http2 {
            let executor = hyper_util::rt::TokioExecutor::new();
            let handshake = hyper::client::conn::http2::handshake(executor, io);
            let (mut client, connection) = handshake.await.unwrap();
            tokio::spawn(connection);
            client.send_request(request).await.unwrap()
        } else {
            let handshake = hyper::client::conn::http1::handshake(io);
            let (mut client, connection) = handshake.await.unwrap();
            tokio::spawn(connection);
            client.send_request(request).await.unwrap()
        };
        settle().await;
        let report = server.stop();
        tokio::time::sleep(Duration::from_secs(50)).await;
        assert!(!report.is_finished());
        let body = in_days(response.into_body().collect()).await.unwrap();
        assert_eq!(body.to_bytes().len(), SIZE);
        assert!(in_days(report).await.unwrap().is_complete());
    }
}

#[tokio::test(start_paused = true)]
async fn half_a_head_and_silence_time_out() {
    let (connect, listener) = in_memory();
    tokio::spawn(serve(listener, app()).into_future());
    for sent in [
        &b""[..],
        &GET[..20],
        b"PRI * HTTP/2.0\r\n",
        // HTTP/2 without SETTINGS, with half of them, with half of a frame of headers, with all of
        // one that is not the last, and with another one of the same head.
        &preface()[..24],
        &[&preface()[..24], &frame(SETTINGS, 0, 0, &[0; 6])[..12]].concat(),
        &[preface(), get_request(END_STREAM)[..12].to_vec()].concat(),
        &[preface(), get_request(END_STREAM)].concat(),
        &[
            preface(),
            get_request(END_STREAM),
            frame(CONTINUATION, 0, 1, &[]),
        ]
        .concat(),
    ] {
        let mut client = connect.connect();
        client.write_all(sent).await.unwrap();
        let start = Instant::now();
        let received = until_closed(&mut client).await;
        assert_eq!(start.elapsed(), Duration::from_secs(30));
        assert!(!received.starts_with(b"HTTP/1.1 4"), "no answer");
    }
}

#[tokio::test(start_paused = true)]
async fn head_timeout_starts_at_first_byte() {
    let (connect, listener) = in_memory();
    tokio::spawn(serve(listener, app()).into_future());
    let mut client = connect.connect();
    for pause in [0, 29, 600, 5, 0] {
        tokio::time::sleep(Duration::from_secs(pause)).await;
        let (first, last) = GET.split_at(20);
        client.write_all(first).await.unwrap();
        tokio::time::sleep(Duration::from_secs(29)).await;
        client.write_all(last).await.unwrap();
        client.read_exact(&mut [0; 15]).await.unwrap();
        settle().await;
    }
    client.write_all(&GET[..20]).await.unwrap();
    let start = Instant::now();
    until_closed(&mut client).await;
    assert_eq!(start.elapsed(), Duration::from_secs(30));
}

#[tokio::test(start_paused = true)]
async fn idle_connections_are_closed_in_time() {
    let (connect, listener) = in_memory();
    let idle = Duration::from_secs(620);
    tokio::spawn(serve(listener, app()).into_future());
    for sent in [GET, &GET.repeat(3)] {
        let mut client = connect.connect();
        client.write_all(sent).await.unwrap();
        let start = Instant::now();
        until_closed(&mut client).await;
        assert_eq!(start.elapsed(), idle);
    }
    // A handler is not idle.
    let mut client = connect.connect();
    client
        .write_all(b"GET /later HTTP/1.1\r\nhost: a\r\n\r\n")
        .await
        .unwrap();
    let start = Instant::now();
    until_closed(&mut client).await;
    assert_eq!(start.elapsed(), Duration::from_secs(60) + idle);
}

#[tokio::test(start_paused = true)]
async fn idle_http2_connections_get_goaway() {
    let (connect, listener) = in_memory();
    let idle = Duration::from_secs(620);
    tokio::spawn(serve(listener, app()).into_future());
    let flags = END_STREAM | END_HEADERS;
    for (sent, busy) in [
        (preface(), 0),
        ([preface(), get_request(flags)].concat(), 0),
        ([preface(), request_for_later(flags)].concat(), 60),
    ] {
        let mut client = connect.connect();
        client.write_all(&sent).await.unwrap();
        let start = Instant::now();
        let ping = tokio::time::sleep(Duration::from_secs(300));
        ping.await;
        // Pings do not count.
        client.write_all(&frame(PING, 0, 0, &[0; 8])).await.unwrap();
        let received = until_closed(&mut client).await;
        // The client never acknowledges GOAWAY.
        let grace = Duration::from_secs(5);
        assert_eq!(start.elapsed(), Duration::from_secs(busy) + idle + grace);
        assert!(kinds(&received).contains(&GOAWAY));
    }
}

#[tokio::test(start_paused = true)]
async fn goaway_has_five_seconds_of_grace() {
    let (server, connect) = Serving::in_memory(app(), LONG);
    let mut client = connect.connect();
    client.write_all(&preface()).await.unwrap();
    settle().await;
    let start = Instant::now();
    let report = server.stop();
    settle().await;
    // Something, and then nothing more.
    client.write_all(&frame(PING, 0, 0, &[0; 8])).await.unwrap();
    until_closed(&mut client).await;
    assert_eq!(start.elapsed(), Duration::from_secs(5));
    assert!(in_days(report).await.unwrap().is_complete());
}

#[tokio::test(start_paused = true)]
async fn no_timeout_can_be_set() {
    let (connect, listener) = in_memory();
    let server = serve(listener, app())
        .header_read_timeout(None)
        .idle_timeout(None)
        .stall_timeout(None);
    tokio::spawn(server.into_future());
    let a_day = Duration::from_secs(24 * 3600);
    for sent in [&b""[..], &GET[..20], GET, &preface()[..24], &preface()] {
        let mut client = connect.connect();
        client.write_all(sent).await.unwrap();
        let closed = tokio::time::timeout(a_day, until_closed(&mut client)).await;
        assert!(closed.is_err());
    }
}

/// What `app` deferred is completed by that.
fn completing(app: Router) -> (Router, Completions) {
    completing_with(app, axum_defer::DeferLayer::new())
}

type Completions = tokio::sync::mpsc::UnboundedReceiver<axum_defer::Completion>;

fn completing_with(app: Router, layer: axum_defer::DeferLayer) -> (Router, Completions) {
    let (sender, completions) = tokio::sync::mpsc::unbounded_channel();
    let app = app
        .layer(axum::middleware::from_fn(
            move |request, next: axum::middleware::Next| {
                let sender = sender.clone();
                axum_defer::defer(move |completion: axum_defer::Completion| async move {
                    sender.send(completion).unwrap();
                })
                .always();
                next.run(request)
            },
        ))
        .layer(layer);
    (app, completions)
}

#[tokio::test(start_paused = true)]
async fn readers_that_stop_time_out() {
    const SIZE: usize = 64 * 1024;
    let app = Router::new().route("/", get(|| async { vec![b'x'; SIZE] }));
    let (app, mut completions) = completing(app);
    let (connect, listener) = in_memory();
    tokio::spawn(serve(listener, app).into_future());
    let request = [preface(), get_request(END_STREAM | END_HEADERS)].concat();
    for request in [GET, &request] {
        let mut client = connect.connect_over(1024);
        client.write_all(request).await.unwrap();
        let start = Instant::now();
        let completion = in_days(completions.recv()).await.unwrap();
        assert!(!completion.is_complete());
        assert_eq!(start.elapsed(), Duration::from_secs(60));
        assert!(until_closed(&mut client).await.len() < SIZE);
    }
}

#[tokio::test(start_paused = true)]
async fn stall_timeout_continues_at_shutdown() {
    let app = Router::new().route("/", get(|| async { vec![b'x'; 64 * 1024] }));
    let (app, mut completions) = completing(app);
    let request = [preface(), get_request(END_STREAM | END_HEADERS)].concat();
    for request in [GET, &request] {
        let (server, connect) = Serving::in_memory(app.clone(), LONG);
        let mut client = connect.connect_over(1024);
        client.write_all(request).await.unwrap();
        let start = Instant::now();
        tokio::time::sleep(Duration::from_secs(40)).await;
        let report = server.stop();
        assert!(!in_days(completions.recv()).await.unwrap().is_complete());
        assert_eq!(start.elapsed(), Duration::from_secs(60));
        assert!(in_days(report).await.unwrap().is_complete());
    }
}

#[tokio::test(start_paused = true)]
async fn slow_readers_do_not_time_out() {
    const SIZE: usize = 16 * 1024;
    let app = Router::new().route("/", get(|| async { vec![b'x'; SIZE] }));
    let (app, mut completions) = completing(app);
    let (connect, listener) = in_memory();
    tokio::spawn(serve(listener, app).into_future());
    let request = [preface(), get_request(END_STREAM | END_HEADERS)].concat();
    for request in [GET, &request] {
        let mut client = connect.connect_over(1024);
        client.write_all(request).await.unwrap();
        let mut received: Vec<u8> = Vec::new();
        while received.iter().filter(|&&byte| byte == b'x').count() < SIZE {
            tokio::time::sleep(Duration::from_secs(59)).await;
            let mut part = [0; 512];
            let length = client.read(&mut part).await.unwrap();
            assert!(length > 0);
            received.extend(&part[..length]);
        }
        assert!(in_days(completions.recv()).await.unwrap().is_complete());
    }
}

#[tokio::test(start_paused = true)]
async fn pending_bodies_do_not_time_out() {
    let app = Router::new().route(
        "/",
        get(|| async {
            let steps = [0, 4000, 4000].into_iter();
            let stream = futures_util::stream::unfold(steps, |mut steps| async move {
                tokio::time::sleep(Duration::from_secs(steps.next()?)).await;
                Some((Ok::<_, std::convert::Infallible>("x"), steps))
            });
            axum::body::Body::from_stream(stream)
        }),
    );
    let (app, mut completions) = completing(app);
    let (connect, listener) = in_memory();
    tokio::spawn(serve(listener, app).into_future());
    let request = [preface(), get_request(END_STREAM | END_HEADERS)].concat();
    for request in [GET, &request] {
        let mut client = connect.connect();
        client.write_all(request).await.unwrap();
        let start = Instant::now();
        assert!(in_days(completions.recv()).await.unwrap().is_complete());
        assert_eq!(start.elapsed(), Duration::from_secs(8000));
    }
}

/// SETTINGS with a window of 0 for each stream.
fn without_window() -> Vec<u8> {
    let mut start = preface()[..24].to_vec();
    start.extend(frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]));
    start
}

#[tokio::test(start_paused = true)]
async fn a_stream_without_a_window_is_decided() {
    let (app, mut completions) = completing(app());
    let (connect, listener) = in_memory();
    tokio::spawn(serve(listener, app).into_future());
    let mut client = connect.connect();
    let flags = END_STREAM | END_HEADERS;
    // Another request keeps the connection busy.
    let mut later = request_for_later(flags);
    later[8] = 3;
    let sent = [without_window(), get_request(flags), later].concat();
    client.write_all(&sent).await.unwrap();
    let start = Instant::now();
    for stream in [1, 3] {
        // The second response has nothing to send for a minute.
        let completion = in_days(completions.recv()).await.unwrap();
        assert!(!completion.is_complete());
        let least = if stream == 1 { 60 } else { 120 };
        let waited = start.elapsed().as_secs();
        assert!((least..least + 16).contains(&waited), "{waited}");
    }
    // Then there is nothing else on the connection.
    until_closed(&mut client).await;
}

#[tokio::test(start_paused = true)]
async fn a_stream_without_a_window_stays_open() {
    let (app, mut completions) = completing(app());
    let (connect, listener) = in_memory();
    tokio::spawn(serve(listener, app).into_future());
    let mut client = connect.connect();
    let flags = END_STREAM | END_HEADERS;
    let mut later = request_for_later(flags);
    later[8] = 3;
    client
        .write_all(&[without_window(), get_request(flags)].concat())
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_secs(50)).await;
    client.write_all(&later).await.unwrap();
    assert!(!in_days(completions.recv()).await.unwrap().is_complete());
    client
        .write_all(&frame(WINDOW_UPDATE, 0, 1, &100u32.to_be_bytes()))
        .await
        .unwrap();
    settle().await;
    let mut received = vec![0; 1024];
    let length = client.read(&mut received).await.unwrap();
    assert!(kinds(&received[..length]).contains(&DATA));
}

#[tokio::test(start_paused = true)]
async fn stalled_streams_keep_max_pending_free() {
    const STREAMS: u32 = 100;
    let handler = || async {
        axum_defer::defer(async {});
        "hello"
    };
    let app = Router::new()
        .route("/", get(handler))
        .layer(axum_defer::DeferLayer::new().max_pending(STREAMS as usize));
    let (connect, listener) = in_memory();
    tokio::spawn(serve(listener, app).into_future());
    let mut attacker = connect.connect();
    let mut sent = without_window();
    for stream in 0..STREAMS {
        let mut request = get_request(END_STREAM | END_HEADERS);
        request[5..9].copy_from_slice(&(2 * stream + 1).to_be_bytes());
        sent.extend(request);
    }
    attacker.write_all(&sent).await.unwrap();
    settle().await;
    let mut client = connect.connect();
    client.write_all(GET).await.unwrap();
    let start = Instant::now();
    in_days(client.read_exact(&mut [0; 15])).await.unwrap();
    let waited = start.elapsed().as_secs();
    assert!((60..=68).contains(&waited), "{waited}");
}

/// Returns a body that never ends by itself.
fn endless() -> axum::body::Body {
    let pieces = futures_util::stream::repeat_with(|| Ok::<_, std::convert::Infallible>("x"));
    axum::body::Body::from_stream(pieces)
}

/// Returns a body that sends a byte per second for an hour.
fn busy() -> axum::body::Body {
    let seconds = futures_util::stream::unfold(0, |second| async move {
        tokio::time::sleep(Duration::from_secs(1)).await;
        (second < 3600).then(|| (Ok::<_, std::convert::Infallible>("x"), second + 1))
    });
    axum::body::Body::from_stream(seconds)
}

/// Requests to stream a body without a window, beside a stream that is busy for an hour.
fn endless_beside_busy_stream() -> Vec<u8> {
    let flags = END_STREAM | END_HEADERS;
    let mut busy = request_for_later(flags);
    busy[8] = 3;
    let window = frame(WINDOW_UPDATE, 0, 3, &1_000_000u32.to_be_bytes());
    [without_window(), get_request(flags), busy, window].concat()
}

fn endless_and_busy() -> Router {
    Router::new()
        .route("/", get(|| async { endless() }))
        .route("/later", get(|| async { busy() }))
}

#[tokio::test(start_paused = true)]
async fn streaming_body_without_a_window_is_decided() {
    let (app, mut completions) = completing(endless_and_busy());
    let (connect, listener) = in_memory();
    tokio::spawn(serve(listener, app).into_future());
    let (mut reader, mut writer) = tokio::io::split(connect.connect());
    writer
        .write_all(&endless_beside_busy_stream())
        .await
        .unwrap();
    let received = tokio::spawn(async move {
        let mut received = Vec::new();
        let _ = reader.read_to_end(&mut received).await;
    });
    let start = Instant::now();
    let completion = in_days(completions.recv()).await.unwrap();
    let waited = start.elapsed().as_secs();
    assert!((60..=68).contains(&waited), "{waited}");
    assert!(!completion.is_complete() && !completion.is_body_finished());
    // The busy stream is not affected.
    let completion = in_days(completions.recv()).await.unwrap();
    assert!(completion.is_complete());
    assert_eq!(start.elapsed().as_secs(), 3601);
    received.abort();
}

#[tokio::test(start_paused = true)]
async fn streaming_body_continues_when_window_opens() {
    let (app, mut completions) = completing(endless_and_busy());
    let (connect, listener) = in_memory();
    tokio::spawn(serve(listener, app).into_future());
    let mut client = connect.connect();
    client
        .write_all(&[without_window(), get_request(END_STREAM | END_HEADERS)].concat())
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_secs(50)).await;
    let window = frame(WINDOW_UPDATE, 0, 1, &100u32.to_be_bytes());
    client.write_all(&window).await.unwrap();
    let mut data = 0;
    while data < 100 {
        let mut received = vec![0; 4096];
        let length = in_days(client.read(&mut received)).await.unwrap();
        data += received[..length]
            .iter()
            .filter(|&&byte| byte == b'x')
            .count();
    }
    drop(client);
    assert!(!in_days(completions.recv()).await.unwrap().is_complete());
}

#[tokio::test(start_paused = true)]
async fn stalled_stream_is_finished_with_finish_body() {
    let stream = || async {
        let pieces = ["x"; 10].map(Ok::<_, std::convert::Infallible>);
        axum::body::Body::from_stream(futures_util::stream::iter(pieces))
    };
    let app = Router::new()
        .route("/", get(stream))
        .route("/later", get(|| async { busy() }));
    let layer = axum_defer::DeferLayer::new().finish_body(Duration::from_secs(100));
    let (app, mut completions) = completing_with(app, layer);
    let (connect, listener) = in_memory();
    tokio::spawn(serve(listener, app).into_future());
    let (mut reader, mut writer) = tokio::io::split(connect.connect());
    writer
        .write_all(&endless_beside_busy_stream())
        .await
        .unwrap();
    tokio::spawn(async move { reader.read_to_end(&mut Vec::new()).await });
    let start = Instant::now();
    let completion = in_days(completions.recv()).await.unwrap();
    let waited = start.elapsed().as_secs();
    assert!((60..=68).contains(&waited), "{waited}");
    assert!(!completion.is_complete() && completion.is_body_finished());
}

#[tokio::test(start_paused = true)]
async fn slow_readers_are_not_idle() {
    const SIZE: usize = 64 * 1024;
    // hyper has all of it at once, and waits for the client.
    let app = Router::new().route("/", get(|| async { vec![b'x'; SIZE] }));
    let (connect, listener) = in_memory();
    tokio::spawn(
        serve(listener, app)
            .idle_timeout(Duration::from_secs(30))
            .into_future(),
    );
    let mut client = connect.connect_over(1024);
    client.write_all(GET).await.unwrap();
    tokio::time::sleep(Duration::from_secs(50)).await;
    let start = Instant::now();
    let received = until_closed(&mut client).await;
    assert_eq!(received.iter().filter(|&&byte| byte == b'x').count(), SIZE);
    assert_eq!(start.elapsed(), Duration::from_secs(30));
}

#[tokio::test(start_paused = true)]
async fn bodies_after_the_response_may_not_pause() {
    const MORE: usize = 20;
    let by_length = format!(
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n",
        MORE + 1
    );
    let in_chunks = "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";
    for (head, piece) in [(&*by_length, "x"), (in_chunks, "1\r\nx\r\n")] {
        let (read, mut was_read) = tokio::sync::mpsc::unbounded_channel();
        let app = Router::new().route(
            "/",
            post(move |mut body: axum::body::Body| async move {
                tokio::spawn(async move {
                    while let Some(Ok(_)) = body.frame().await {
                        read.send(()).unwrap();
                    }
                });
                "soon"
            }),
        );
        let (connect, listener) = in_memory();
        tokio::spawn(serve(listener, app).into_future());
        let mut client = connect.connect();
        client.write_all(head.as_bytes()).await.unwrap();
        for pause in [&[0][..], &[600; MORE]].concat() {
            tokio::time::sleep(Duration::from_secs(pause)).await;
            client.write_all(piece.as_bytes()).await.unwrap();
            in_days(was_read.recv()).await.unwrap();
        }
        let start = Instant::now();
        assert!(until_closed(&mut client).await.ends_with(b"soon"));
        assert_eq!(start.elapsed(), Duration::from_secs(620));
    }
}

#[tokio::test(start_paused = true)]
async fn slow_handlers_get_the_whole_body() {
    let (taken, mut was_taken) = tokio::sync::mpsc::unbounded_channel();
    let app = Router::new().route(
        "/",
        post(move |mut body: axum::body::Body| async move {
            tokio::spawn(async move {
                let mut length = 0;
                while let Some(frame) = body.frame().await {
                    length += frame.unwrap().into_data().map_or(0, |data| data.len());
                    tokio::time::sleep(Duration::from_secs(200)).await;
                }
                taken.send(length).unwrap();
            });
            "soon"
        }),
    );
    let (connect, listener) = in_memory();
    tokio::spawn(serve(listener, app).into_future());
    let mut client = connect.connect();
    let mut request = b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    request.extend(b"1\r\nx\r\n".repeat(10));
    request.extend(b"0\r\n\r\n");
    client.write_all(&request).await.unwrap();
    until_closed(&mut client).await;
    assert_eq!(in_days(was_taken.recv()).await, Some(10));
}

#[tokio::test(start_paused = true)]
async fn header_read_timeout_can_be_set() {
    let a_day = Duration::from_secs(24 * 3600);
    for limit in [Some(Duration::from_secs(3)), Some(Duration::MAX), None] {
        let (connect, listener) = in_memory();
        tokio::spawn(
            serve(listener, app())
                .header_read_timeout(limit)
                .idle_timeout(None)
                .into_future(),
        );
        for sent in [&b""[..], &GET[..20]] {
            let mut client = connect.connect();
            client.write_all(sent).await.unwrap();
            let start = Instant::now();
            let closed = tokio::time::timeout(a_day, until_closed(&mut client)).await;
            match limit {
                Some(limit) if limit < a_day => assert_eq!(start.elapsed(), limit),
                _ => assert!(closed.is_err(), "it has all the time in the world"),
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn hyper_is_configured() {
    let (connect, listener) = in_memory();
    let server = serve(listener, app())
        .configure_http1(|http1| {
            http1.header_read_timeout(Duration::from_secs(3));
        })
        .configure_http2(|http2| {
            http2
                .keep_alive_interval(Duration::from_secs(20))
                .keep_alive_timeout(Duration::from_secs(10));
        });
    tokio::spawn(server.into_future());

    let mut client = connect.connect();
    client.write_all(&GET[..20]).await.unwrap();
    let start = Instant::now();
    until_closed(&mut client).await;
    assert_eq!(start.elapsed(), Duration::from_secs(3));

    // It never answers the ping.
    let mut client = connect.connect();
    client.write_all(&preface()).await.unwrap();
    let start = Instant::now();
    let received = until_closed(&mut client).await;
    assert_eq!(start.elapsed(), Duration::from_secs(30));
    assert!(kinds(&received).contains(&PING));
}

#[tokio::test]
async fn hyper_is_configured_over_sockets() {
    let (listener, address) = listen().await;
    let server = serve(listener, app()).configure_http1(|http1| {
        http1.keep_alive(false);
    });
    tokio::spawn(server.into_future());
    let mut client = TcpStream::connect(address).await.unwrap();
    client.write_all(GET).await.unwrap();
    let mut received = String::new();
    in_time(client.read_to_string(&mut received)).await.unwrap();
    assert!(received.ends_with("hello"), "{received}");
}

//! The same hostile clients against `axum::serve` and `axum_defer::serve`: ours answers alike, and holds
//! no connection longer, and no more memory.

#![allow(clippy::unwrap_used)]

use std::{future::IntoFuture, time::Duration};

use axum::{
    Router,
    body::Bytes,
    extract::Request,
    routing::{any, get, post},
};
use axum_defer::DeferLayer;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    time::{Instant, timeout},
};

use crate::support::serving::{Connect, in_memory, settle};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const CONTINUATION: u8 = 9;
const WHOLE: u8 = 5;

/// No connection is watched for longer.
const HORIZON: Duration = Duration::from_secs(3600);

fn app() -> Router {
    Router::new()
        .route("/", get(|| async { "hello" }))
        .route("/echo", post(|body: Bytes| async move { body }))
        .route("/large", get(|| async { vec![b'x'; 1 << 20] }))
        .route(
            "/upgrade",
            any(|mut request: Request| async move {
                let upgrade = hyper::upgrade::on(&mut request);
                tokio::spawn(async move {
                    let mut io = TokioIo::new(upgrade.await.unwrap());
                    let _ = io.write_all(b"upgraded").await;
                });
                (
                    http::StatusCode::SWITCHING_PROTOCOLS,
                    [("connection", "upgrade"), ("upgrade", "echo")],
                )
            }),
        )
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Server {
    Axum,
    Ours,
    OursWithLayer,
}

fn start(server: Server) -> Connect {
    let (connect, listener) = in_memory();
    match server {
        Server::Axum => drop(tokio::spawn(axum::serve(listener, app()).into_future())),
        Server::Ours => drop(tokio::spawn(
            axum_defer::serve(listener, app()).into_future(),
        )),
        Server::OursWithLayer => {
            let app = DeferLayer::new().layer(app());
            drop(tokio::spawn(axum_defer::serve(listener, app).into_future()));
        }
    }
    connect
}

/// What a client does.
#[derive(Clone)]
enum Step {
    Send(Vec<u8>),
    Pause(u64),
    /// The client closes its sending half.
    HalfClose,
    /// The client closes the connection.
    Close,
}

fn send(bytes: impl Into<Vec<u8>>) -> Step {
    Step::Send(bytes.into())
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

fn http2(frames: &[Vec<u8>]) -> Vec<u8> {
    [
        PREFACE.to_vec(),
        frame(SETTINGS, 0, 0, &[]),
        frames.concat(),
    ]
    .concat()
}

/// HEADERS of a GET of `/`.
fn get_root(flags: u8, stream: u32) -> Vec<u8> {
    frame(HEADERS, flags, stream, &[0x82, 0x86, 0x84, 0x41, 1, b'a'])
}

/// HEADERS of a POST to `/echo`.
fn post_echo(flags: u8, stream: u32) -> Vec<u8> {
    let mut fields = vec![0x83, 0x86, 0x04, 5];
    fields.extend(b"/echo");
    fields.extend([0x41, 1, b'a']);
    frame(HEADERS, flags, stream, &fields)
}

fn clients() -> Vec<(&'static str, Vec<Step>)> {
    let get = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
    let head = "POST /echo HTTP/1.1\r\nhost: a\r\n";
    let by_length = format!("{head}content-length: 10\r\n\r\nhello");
    let chunked = format!("{head}transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n");
    let expect = format!("{head}expect: 100-continue\r\ncontent-length: 5\r\n\r\n");
    let long = "x".repeat(600_000);
    let no_window = frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]);
    let floods = |frame: Vec<u8>| http2(&vec![frame; 20_000]);
    let resets = |count: u32| {
        let streams = (0..count).map(|index| 2 * index + 1);
        let each = streams.flat_map(|stream| {
            [
                get_root(WHOLE, stream),
                frame(RST_STREAM, 0, stream, &[0, 0, 0, 8]),
            ]
        });
        http2(&each.collect::<Vec<_>>())
    };
    vec![
        ("silent", vec![]),
        ("half a head", vec![send("GET / HTTP/1.1\r\nho")]),
        (
            "a slow head",
            vec![
                send("GET / HTTP/1.1\r\n"),
                Step::Pause(10),
                send("host: a\r\n"),
                Step::Pause(10),
                send("\r\n"),
            ],
        ),
        ("half a body", vec![send(by_length.clone())]),
        ("half a chunked body", vec![send(chunked.clone())]),
        (
            "a slow body",
            vec![send(by_length), Step::Pause(300), send("world")],
        ),
        (
            "a slow chunked body",
            vec![send(chunked), Step::Pause(300), send("0\r\n\r\n")],
        ),
        ("a request", vec![send(get)]),
        ("pipelining", vec![send(get.repeat(20))]),
        (
            "pipelining, and half a head",
            vec![send(format!("{get}{get}GET /"))],
        ),
        ("half-close", vec![send(get), Step::HalfClose]),
        ("half-close in a head", vec![send("GET /"), Step::HalfClose]),
        ("an early close", vec![send(get), Step::Close]),
        (
            "an early close in a large body",
            vec![send("GET /large HTTP/1.1\r\nhost: a\r\n\r\n"), Step::Close],
        ),
        (
            "expect",
            vec![send(expect.clone()), Step::Pause(1), send("hello")],
        ),
        ("expect, without a body", vec![send(expect)]),
        (
            "upgrade",
            vec![send(
                "GET /upgrade HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n",
            )],
        ),
        (
            "upgrade of an app without",
            vec![send(
                "GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n",
            )],
        ),
        ("HTTP/1.0", vec![send("GET / HTTP/1.0\r\n\r\n")]),
        ("HEAD", vec![send("HEAD / HTTP/1.1\r\nhost: a\r\n\r\n")]),
        (
            "connection: close",
            vec![send(
                "GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
            )],
        ),
        (
            "two lengths",
            vec![send(format!(
                "{head}content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n{get}"
            ))],
        ),
        (
            "two different lengths",
            vec![send(format!(
                "{head}content-length: 5\r\ncontent-length: 6\r\n\r\nhello"
            ))],
        ),
        (
            "no protocol",
            vec![send(*b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")],
        ),
        (
            "a long head",
            vec![send(format!("GET / HTTP/1.1\r\nx: {long}\r\n\r\n"))],
        ),
        (
            "a long path",
            vec![send(format!("GET /{long} HTTP/1.1\r\n\r\n"))],
        ),
        (
            "many headers",
            vec![send(format!(
                "GET / HTTP/1.1\r\n{}\r\n",
                "x: y\r\n".repeat(200)
            ))],
        ),
        ("half a preface", vec![send(&PREFACE[..10])]),
        ("a preface", vec![send(PREFACE)]),
        (
            "a preface in parts",
            vec![
                send(&PREFACE[..3]),
                Step::Pause(1),
                send(&PREFACE[3..]),
                send(frame(SETTINGS, 0, 0, &[])),
                send(get_root(WHOLE, 1)),
            ],
        ),
        (
            "almost a preface",
            vec![send("PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n")],
        ),
        (
            "HTTP/2",
            vec![send(http2(&[get_root(WHOLE, 1), get_root(WHOLE, 3)]))],
        ),
        (
            "HTTP/2 and half-close",
            vec![send(http2(&[get_root(WHOLE, 1)])), Step::HalfClose],
        ),
        (
            "HTTP/2, half a body",
            vec![send(http2(&[post_echo(4, 1), frame(DATA, 0, 1, b"hello")]))],
        ),
        (
            "HTTP/2 without a window",
            vec![send(
                [PREFACE.to_vec(), no_window, get_root(WHOLE, 1)].concat(),
            )],
        ),
        (
            "HTTP/2, an unfinished block",
            vec![send(http2(&[get_root(1, 1)]))],
        ),
        (
            "CONTINUATION flood",
            vec![send(
                [
                    http2(&[get_root(1, 1)]),
                    frame(CONTINUATION, 0, 1, b"").repeat(20_000),
                ]
                .concat(),
            )],
        ),
        (
            "SETTINGS flood",
            vec![send(floods(frame(SETTINGS, 0, 0, &[])))],
        ),
        ("PING flood", vec![send(floods(frame(PING, 0, 0, &[0; 8])))]),
        (
            "empty DATA flood",
            vec![send(
                [
                    http2(&[post_echo(4, 1)]),
                    frame(DATA, 0, 1, b"").repeat(20_000),
                ]
                .concat(),
            )],
        ),
        ("rapid reset", vec![send(resets(10_000))]),
        (
            "HTTP/2, an even stream",
            vec![send(http2(&[get_root(WHOLE, 2)]))],
        ),
        (
            "HTTP/2, a frame on stream 0",
            vec![send(http2(&[frame(DATA, 0, 0, b"x")]))],
        ),
        (
            "HTTP/2, an early close",
            vec![send(http2(&[get_root(WHOLE, 1)])), Step::Close],
        ),
    ]
}

/// What a client has seen.
#[derive(Debug)]
struct Seen {
    /// What came before any timeout, without dates.
    answer: Vec<u8>,
    closed_after: Option<Duration>,
}

async fn run(connect: &Connect, steps: Vec<Step>) -> Seen {
    let client = connect.connect_over(4 << 20);
    let (mut reader, mut writer) = tokio::io::split(client);
    let start = Instant::now();
    let mut answer = Vec::new();
    let mut closes = false;
    for step in steps {
        match step {
            Step::Send(bytes) => drop(writer.write_all(&bytes).await),
            Step::Pause(seconds) => tokio::time::sleep(Duration::from_secs(seconds)).await,
            Step::HalfClose => writer.shutdown().await.unwrap(),
            Step::Close => closes = true,
        }
    }
    settle().await;
    if closes {
        drop(reader.unsplit(writer));
        settle().await;
        return Seen {
            answer,
            closed_after: None,
        };
    }
    // What is there now, and then nothing for a moment.
    let moment = Duration::from_millis(1);
    let mut is_closed = false;
    while let Ok(read) = timeout(moment, reader.read_buf(&mut answer)).await {
        if !matches!(read, Ok(1..)) {
            is_closed = true;
            break;
        }
    }
    let answered = answer.len();
    while !is_closed && start.elapsed() < HORIZON {
        let left = HORIZON - start.elapsed();
        is_closed = match timeout(left, reader.read_buf(&mut answer)).await {
            Ok(read) => !matches!(read, Ok(1..)),
            Err(_) => break,
        };
    }
    answer.truncate(answered);
    Seen {
        answer: without_dates(&answer),
        closed_after: is_closed.then(|| start.elapsed()),
    }
}

fn without_dates(answer: &[u8]) -> Vec<u8> {
    let mut rest = answer;
    let mut without = Vec::new();
    if answer.starts_with(b"HTTP/1") {
        while let Some(at) = rest.windows(6).position(|part| part == b"date: ") {
            without.extend(&rest[..at]);
            rest = &rest[at + 6..];
            let end = rest.iter().position(|&byte| byte == b'\r').unwrap();
            rest = &rest[end..];
        }
        without.extend(rest);
        return without;
    }
    // Of HTTP/2, all but the fields, in which there is a date.
    while let [a, b, c, kind, flags, _, _, _, stream, after @ ..] = rest {
        let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
        without.extend([*kind, *flags, *stream]);
        if *kind != HEADERS {
            without.extend(&after[..length.min(after.len())]);
        }
        rest = &after[length.min(after.len())..];
    }
    without
}

#[tokio::test(start_paused = true)]
async fn hostile_clients_get_the_same_answers() {
    let servers =
        [Server::Axum, Server::Ours, Server::OursWithLayer].map(|server| (server, start(server)));
    let mut differences = Vec::new();
    for (name, steps) in clients() {
        let mut reference: Option<Seen> = None;
        for (server, connect) in &servers {
            let seen = run(connect, steps.clone()).await;
            let Some(reference) = &reference else {
                reference = Some(seen);
                continue;
            };
            if seen.answer != reference.answer {
                differences.push(format!(
                    "{name}, {server:?}: {:?} instead of {:?}",
                    String::from_utf8_lossy(&seen.answer[..seen.answer.len().min(300)]),
                    String::from_utf8_lossy(&reference.answer[..reference.answer.len().min(300)]),
                ));
            }
            let longest = reference.closed_after.unwrap_or(Duration::MAX);
            if seen.closed_after.unwrap_or(Duration::MAX) > longest {
                differences.push(format!(
                    "{name}, {server:?}: closed after {:?} instead of {longest:?}",
                    seen.closed_after
                ));
            }
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

/// Opens connections, and returns how many bytes each of them has allocated.
fn bytes_per_connection(server: Server, sent: &[u8]) -> i64 {
    const CONNECTIONS: i64 = 64;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let connect = runtime.block_on(async {
        let connect = start(server);
        // What is allocated once.
        for _ in 0..4 {
            drop(open(&connect, sent).await);
        }
        settle().await;
        connect
    });
    let mut clients = Vec::with_capacity(CONNECTIONS as usize);
    let allocated = allocation_counter::measure(|| {
        runtime.block_on(async {
            for _ in 0..CONNECTIONS {
                clients.push(open(&connect, sent).await);
            }
        });
    });
    allocated.bytes_current / CONNECTIONS
}

async fn open(connect: &Connect, sent: &[u8]) -> DuplexStream {
    let mut client = connect.connect_over(64 * 1024);
    client.write_all(sent).await.unwrap();
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    client
}

#[test]
fn connections_hold_no_more_memory() {
    let no_window = frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]);
    let window_of_0 = [PREFACE.to_vec(), no_window, get_root(WHOLE, 1)].concat();
    let mut more = Vec::<String>::new();
    for (name, sent) in [
        ("silent", b"".to_vec()),
        ("half a head", b"GET / HTTP/1.1\r\nho".to_vec()),
        ("idle", b"GET / HTTP/1.1\r\nhost: a\r\n\r\n".to_vec()),
        ("idle, HTTP/2", http2(&[get_root(WHOLE, 1)])),
        ("without a window", window_of_0),
    ] {
        let [axum, ours] =
            [Server::Axum, Server::Ours].map(|server| bytes_per_connection(server, &sent));
        println!("{name}: {ours} bytes, axum::serve {axum}");
        // Three percent, because HTTP/2 connections are boxed, so that others need no space for them.
        if ours > axum + axum * 3 / 100 {
            more.push(format!("{name}: {ours} bytes, and {axum} of axum::serve"));
        }
    }
    assert!(more.is_empty(), "{}", more.join("\n"));
}

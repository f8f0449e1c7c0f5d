//! The example that motivates the second level of sent: a callback that ends the process.
//!
//! The server is a process of its own: this test binary, told by an environment variable to run
//! the server's part. The client reads nothing until the server says that the kernel takes no
//! more.

#![allow(clippy::unwrap_used)]

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    pin::Pin,
    process::{Command, ExitStatus, Stdio},
    task::{Context, Poll},
};

use axum::{Router, body::Body, routing::get, serve::Listener};
use axum_defer::{DeferLayer, defer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::support::in_time;

const TOTAL: usize = 32 * 1024 * 1024;
const SERVER: &str = "AXUM_DEFER_TEST_EXIT_SERVER";

/// Says on standard output when the kernel takes no more.
struct Telling(tokio::net::TcpListener);

struct TellingIo(tokio::net::TcpStream);

impl Listener for Telling {
    type Io = TellingIo;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (TellingIo, SocketAddr) {
        let (stream, address) = Listener::accept(&mut self.0).await;
        (TellingIo(stream), address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

impl AsyncRead for TellingIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for TellingIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.0).poll_write(cx, buf);
        if polled.is_pending() {
            tell("stuck");
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// One line, past the test harness, whose output the same pipe carries.
fn tell(word: &str) {
    let mut output = io::stdout().lock();
    writeln!(output, "\nserver: {word}").unwrap();
    output.flush().unwrap();
}

/// The server's part; as a test of its own it has nothing to do.
#[tokio::test]
async fn the_server_s_part() {
    let Ok(level) = std::env::var(SERVER) else {
        return;
    };
    let app = Router::new()
        .route(
            "/",
            get(|| async {
                defer(async { std::process::exit(7) });
                Body::from(vec![b'x'; TOTAL])
            }),
        )
        .layer(DeferLayer::new());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    tell(&listener.local_addr().unwrap().to_string());
    let served = async {
        match level.as_str() {
            "sent" => axum_defer::serve(Telling(listener), app).await.unwrap(),
            _ => axum::serve(Telling(listener), app).await.unwrap(),
        }
    };
    // When this process ends, so does all that its parent waits for.
    in_time(served).await;
}

/// How many bytes of the body the client gets, and how the server ends.
fn download(level: &str) -> (usize, ExitStatus) {
    let mut server = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "exit::the_server_s_part", "--nocapture"])
        .env(SERVER, level)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(server.stdout.take().unwrap()).lines();
    let mut hear =
        move || lines.find_map(|line| Some(line.unwrap().strip_prefix("server: ")?.to_owned()));
    let address = hear().expect("the server says where it listens");
    let mut stream = TcpStream::connect(address).unwrap();
    stream
        .write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        .unwrap();
    // The end of the output will do too: without `serve` the server is gone by now.
    let said = hear();
    assert!(said.is_none_or(|said| said == "stuck"));

    let mut response = Vec::new();
    // A reset at the end takes nothing away from what came before.
    let _ = stream.read_to_end(&mut response);
    let status = server.wait().unwrap();
    let end = b"\r\n\r\n";
    let head = response
        .windows(end.len())
        .position(|part| part == end)
        .unwrap();
    (response.len() - head - end.len(), status)
}

#[test]
fn a_callback_that_exits_takes_no_byte_from_a_client_that_paused() {
    let (received, status) = download("sent");
    assert_eq!(received, TOTAL);
    assert_eq!(status.code(), Some(7), "it was the callback that exited");
}

/// What the test above would see if callbacks fired too early.
#[test]
fn without_serve_the_same_client_loses_bytes() {
    let (received, status) = download("handed over");
    assert!(received < TOTAL);
    assert_eq!(status.code(), Some(7));
}

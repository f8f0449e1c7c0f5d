//! What flush detection assumes about hyper and h2, one assumption per test, without this crate.
//!
//! A test that fails after an upgrade names the assumption that no longer holds, and with it the part
//! of `src/sent` that rests on it.

use std::{
    collections::VecDeque,
    convert::Infallible,
    io::{self, IoSlice},
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};
use hyper::{Request, Response, body::Incoming, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::support::window::{ServerEnd, Window};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";
/// More than a server copies.
const LARGE: usize = 100_000;

/// More than h2 copies of a frame to write it together with its head.
const COPIED: usize = 1_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    /// The server looks for something to read.
    Reads,
    Wrote(usize),
    Flushed,
    BodyPolled,
    BodyDropped,
    Advanced(usize),
    /// A buffer was dropped with so many bytes left.
    BufferDropped(usize),
}

use Event::{Advanced, BodyDropped, BodyPolled, BufferDropped, Flushed, Reads, Wrote};

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<Event>>>);

impl Log {
    fn add(&self, event: Event) {
        self.0.lock().unwrap().push(event);
    }

    fn events(&self) -> Vec<Event> {
        self.0.lock().unwrap().clone()
    }

    fn position(&self, event: Event) -> usize {
        let events = self.events();
        let found = events.iter().position(|other| *other == event);
        found.unwrap_or_else(|| panic!("no {event:?} in {events:?}"))
    }
}

/// The bytes that `count` finds in some events.
fn sum(events: &[Event], count: fn(Event) -> usize) -> usize {
    events.iter().copied().map(count).sum()
}

fn written(event: Event) -> usize {
    if let Wrote(bytes) = event { bytes } else { 0 }
}

fn advanced(event: Event) -> usize {
    if let Advanced(bytes) = event {
        bytes
    } else {
        0
    }
}

struct LoggedIo {
    io: ServerEnd,
    log: Log,
}

impl AsyncRead for LoggedIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.log.add(Reads);
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl LoggedIo {
    fn log_write(&self, polled: &Poll<io::Result<usize>>) {
        if let Poll::Ready(Ok(written)) = polled {
            self.log.add(Wrote(*written));
        }
    }
}

impl AsyncWrite for LoggedIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write(cx, buf);
        self.log_write(&polled);
        polled
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.log_write(&polled);
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.io).poll_flush(cx);
        if polled.is_ready() {
            self.log.add(Flushed);
        }
        polled
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

struct LoggedBuf {
    data: Bytes,
    log: Log,
}

impl Buf for LoggedBuf {
    fn remaining(&self) -> usize {
        self.data.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.data.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.log.add(Advanced(count));
        self.data.advance(count);
    }

    fn copy_to_bytes(&mut self, length: usize) -> Bytes {
        self.log.add(Advanced(length));
        self.data.copy_to_bytes(length)
    }
}

impl Drop for LoggedBuf {
    fn drop(&mut self) {
        self.log.add(BufferDropped(self.data.remaining()));
    }
}

/// A body of frames of these lengths.
struct LoggedBody {
    frames: VecDeque<usize>,
    log: Log,
}

impl Body for LoggedBody {
    type Data = LoggedBuf;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<LoggedBuf>, Infallible>>> {
        self.log.add(BodyPolled);
        let Some(length) = self.frames.pop_front() else {
            return Poll::Ready(None);
        };
        Poll::Ready(Some(Ok(Frame::data(LoggedBuf {
            data: vec![b'x'; length].into(),
            log: self.log.clone(),
        }))))
    }

    fn is_end_stream(&self) -> bool {
        self.frames.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.frames.iter().map(|length| *length as u64).sum())
    }
}

impl Drop for LoggedBody {
    fn drop(&mut self) {
        self.log.add(BodyDropped);
    }
}

/// Starts a server on one connection that answers each request with these frames.
fn serve(window: &Window, is_http2: bool, frames: &[usize]) -> Log {
    let log = Log::default();
    let io = TokioIo::new(LoggedIo {
        io: window.server_end(),
        log: log.clone(),
    });
    let (body_log, frames) = (log.clone(), frames.to_vec());
    let service = service_fn(move |_: Request<Incoming>| {
        let body = LoggedBody {
            frames: frames.clone().into(),
            log: body_log.clone(),
        };
        async { Ok::<_, Infallible>(Response::new(body)) }
    });
    if is_http2 {
        let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        tokio::spawn(builder.serve_connection(io, service));
    } else {
        let builder = hyper::server::conn::http1::Builder::new();
        tokio::spawn(builder.serve_connection(io, service));
    }
    log
}

fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).expect("a short payload");
    let mut frame = vec![0, 0, length, kind, flags, 0, 0, 0, stream];
    frame.extend(payload);
    frame
}

/// The start of a connection, with this window for each stream.
fn preface(window: u32) -> Vec<u8> {
    let value = [&[0, 4][..], &window.to_be_bytes()].concat();
    [PREFACE, &frame(4, 0, 0, &value)].concat()
}

fn get(stream: u8) -> Vec<u8> {
    frame(1, 5, stream, &[0x82, 0x86, 0x84, 0x41, 0x01, b'a'])
}

fn reset(stream: u8) -> Vec<u8> {
    frame(3, 0, stream, &[0, 0, 0, 8])
}

/// Windows for all that a test sends.
fn wide_windows(stream: u8) -> Vec<u8> {
    let update = 1_000_000_u32.to_be_bytes();
    [frame(8, 0, 0, &update), frame(8, 0, stream, &update)].concat()
}

/// Frames of a stream that were accepted whole.
fn frames_of(window: &Window, stream: u8) -> usize {
    let accepted = window.accepted();
    let (mut rest, mut found) = (&accepted[..], 0);
    while let [a, b, c, _, _, _, _, _, of, payload @ ..] = rest {
        let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
        let Some(next) = payload.get(length..) else {
            break;
        };
        found += usize::from(*of == stream);
        rest = next;
    }
    found
}

/// The response is one large frame, and the client reads half of it before it reads the rest.
async fn large_response(is_http2: bool, vectored: bool) -> (Window, Log) {
    let window = Window::new(LARGE / 2).with_vectored_writes(vectored);
    let log = serve(&window, is_http2, &[LARGE]);
    if is_http2 {
        window.send(&[preface(1_000_000), wide_windows(0), get(1)].concat());
    } else {
        window.send(GET);
    }
    window.settle().await;
    window.open_for_ever();
    window.settle().await;
    (window, log)
}

/// The first flush after the last byte of the body was taken from its buffer covers the response.
fn assert_covering_flush(log: &Log) {
    let events = log.events();
    let last = events.iter().rposition(|event| advanced(*event) > 0);
    let last = last.expect("the body is taken");
    let flush = events[last..].iter().position(|event| *event == Flushed);
    let flush = last + flush.expect("a flush follows");
    assert_eq!(
        sum(&events[flush..], written),
        0,
        "all is written before the flush: {events:?}"
    );
}

#[tokio::test]
async fn http1_advances_large_buffer_after_write() {
    let (_, log) = large_response(false, true).await;
    let events = log.events();
    for end in 0..events.len() {
        let events = &events[..=end];
        assert!(
            sum(events, advanced) <= sum(events, written),
            "it advances what it has not written: {events:?}"
        );
    }
    assert_eq!(sum(&events, advanced), LARGE);
}

#[tokio::test]
async fn http1_copies_buffer_without_vectored_writes() {
    let (_, log) = large_response(false, false).await;
    let copied = log.position(Advanced(LARGE));
    assert_eq!(sum(&log.events()[..copied], written), 0);
    assert!(sum(&log.events()[copied..], written) > LARGE);
}

#[tokio::test]
async fn http2_advances_large_buffer_after_write() {
    let (_, log) = large_response(true, true).await;
    let events = log.events();
    for end in 0..events.len() {
        let events = &events[..=end];
        assert!(
            sum(events, advanced) <= sum(events, written) + COPIED,
            "it advances what it has not written: {events:?}"
        );
    }
    assert_eq!(sum(&events, advanced), LARGE);
}

#[tokio::test]
async fn http2_copies_small_buffer_before_write() {
    let window = Window::new(usize::MAX);
    let log = serve(&window, true, &[10]);
    window.send(&preface(1_000));
    window.settle().await;
    let before = sum(&log.events(), written);
    window.send(&get(1));
    window.settle().await;
    let copied = log.position(Advanced(10));
    assert_eq!(sum(&log.events()[..copied], written), before);
    assert_covering_flush(&log);
}

#[tokio::test]
async fn http1_flushes_after_last_byte() {
    for vectored in [false, true] {
        let (_, log) = large_response(false, vectored).await;
        assert_covering_flush(&log);
    }
}

#[tokio::test]
async fn http2_flushes_after_last_byte() {
    for vectored in [false, true] {
        let (_, log) = large_response(true, vectored).await;
        assert_covering_flush(&log);
    }
}

#[tokio::test]
async fn http2_reads_before_it_writes() {
    let window = Window::new(usize::MAX);
    let log = serve(&window, true, &[10, LARGE, 0]);
    window.send(&[preface(1_000_000), wide_windows(0)].concat());
    for stream in [1, 3, 5] {
        window.send(&get(stream));
        window.settle().await;
    }
    let mut has_read = true;
    let events = log.events();
    for (index, event) in events.iter().enumerate() {
        match event {
            Reads => has_read = true,
            BodyDropped => has_read = false,
            Wrote(_) => assert!(
                has_read,
                "it writes a new response before it reads: {:?}",
                &events[..=index]
            ),
            _ => {}
        }
    }
    assert_eq!(
        events.iter().filter(|event| **event == BodyDropped).count(),
        3
    );
}

#[tokio::test]
async fn http1_drops_body_before_flush() {
    let window = Window::new(0);
    let log = serve(&window, false, &[LARGE]);
    window.send(GET);
    window.settle().await;
    assert!(window.is_stuck());
    assert!(log.events().contains(&BodyDropped));
    assert_eq!(sum(&log.events(), written), 0);
}

#[tokio::test]
async fn http2_takes_frame_beyond_capacity() {
    let window = Window::new(usize::MAX);
    let log = serve(&window, true, &[LARGE]);
    window.send(&[preface(1), get(1)].concat());
    window.settle().await;
    assert!(log.position(BodyPolled) < log.position(BodyDropped));
    assert_eq!(sum(&log.events(), advanced), 1);
}

#[tokio::test]
async fn http2_reset_drops_response_silently() {
    for frames in [&[][..], &[10]] {
        let window = Window::new(usize::MAX);
        let log = serve(&window, true, frames);
        window.send(&preface(1_000));
        window.settle().await;
        let before = log.events().len();
        window.send(&[get(1), reset(1)].concat());
        window.settle().await;
        assert_eq!(frames_of(&window, 1), 0, "nothing is written");
        let after = &log.events()[before..];
        let dropped = after.iter().position(|event| *event == BodyDropped);
        let dropped = dropped.expect("the body is dropped");
        // What is left of the response is found in a round after it, by its flush.
        let flush = after[dropped..].iter().position(|event| *event == Flushed);
        assert!(flush.is_some(), "{after:?}");
    }
}

#[tokio::test]
async fn http2_reset_drops_queued_buffer() {
    let window = Window::new(usize::MAX);
    let log = serve(&window, true, &[LARGE]);
    window.send(&[preface(10), get(1)].concat());
    window.settle().await;
    assert_eq!(sum(&log.events(), advanced), 10);
    window.send(&reset(1));
    window.settle().await;
    log.position(BufferDropped(LARGE - 10));
}

#[tokio::test]
async fn http2_reset_does_not_interrupt_frame() {
    let window = Window::new(1_000);
    let log = serve(&window, true, &[10_000]);
    window.send(&[preface(1_000_000), get(1)].concat());
    window.settle().await;
    assert!(window.is_stuck());
    window.send(&reset(1));
    window.settle().await;
    window.open_for_ever();
    window.settle().await;
    assert_eq!(frames_of(&window, 1), 2, "HEADERS and DATA");
    assert_eq!(sum(&log.events(), advanced), 10_000);
    log.position(BufferDropped(0));
}

//! A connection in memory whose window the test controls. The test knows which bytes the transport
//! has accepted, and when the server is blocked.

#![allow(
    dead_code,
    unreachable_pub,
    missing_debug_implementations,
    clippy::unwrap_used
)]

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll, Waker},
};

use axum::{Router, body::Body, extract::Request};
use axum_defer::sent::SentIo;
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto::Builder,
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    task::JoinHandle,
};
use tower::{Layer, ServiceExt};

/// The state that both ends of a connection share.
#[derive(Default)]
struct State {
    /// Bytes that the client has sent and the server has not read.
    to_server: Vec<u8>,
    client_closed: bool,
    server_reader: Option<Waker>,
    /// The bytes that the transport has accepted from the server.
    accepted: Vec<u8>,
    /// The number of bytes that the transport accepts in total.
    window: usize,
    flush_is_shut: bool,
    /// The server waits for the test to write or flush.
    stuck: bool,
    broken: bool,
    server_closed: bool,
    server_writer: Option<Waker>,
    /// The number of accepted bytes that the client has read.
    read: usize,
    client_reader: Option<Waker>,
    vectored: bool,
}

impl State {
    /// Makes the server wait for the test.
    fn stick<T>(&mut self, cx: &Context<'_>) -> Poll<T> {
        self.stuck = true;
        self.server_writer = Some(cx.waker().clone());
        Poll::Pending
    }
}

/// The test's handle to the connection.
#[derive(Clone)]
pub struct Window(Arc<Mutex<State>>);

impl Window {
    pub fn new(window: usize) -> Self {
        Self(Arc::new(Mutex::new(State {
            window,
            vectored: true,
            ..State::default()
        })))
    }

    /// Enables vectored writes. Without them, the transport takes one buffer at a time, so servers copy.
    pub fn with_vectored_writes(self, vectored: bool) -> Self {
        self.state().vectored = vectored;
        self
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    fn unbroken_state(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.state();
        match state.broken {
            true => Err(io::ErrorKind::ConnectionReset.into()),
            false => Ok(state),
        }
    }

    pub fn server_end(&self) -> ServerEnd {
        ServerEnd(self.clone())
    }

    pub fn client_end(&self) -> ClientEnd {
        ClientEnd(self.clone())
    }

    /// Makes the transport accept more bytes.
    pub fn open_by(&self, bytes: usize) {
        let mut state = self.state();
        state.window = state.window.saturating_add(bytes);
        wake(&mut state.server_writer);
    }

    pub fn open_for_ever(&self) {
        self.open_by(usize::MAX);
    }

    /// Sets whether flushes wait. Writes are accepted in any case.
    pub fn shut_flush(&self, shut: bool) {
        let mut state = self.state();
        state.flush_is_shut = shut;
        wake(&mut state.server_writer);
    }

    /// Sends bytes from the client.
    pub fn send(&self, bytes: &[u8]) {
        let mut state = self.state();
        state.to_server.extend_from_slice(bytes);
        wake(&mut state.server_reader);
    }

    /// Breaks the connection, like a reset.
    pub fn break_off(&self) {
        let mut state = self.state();
        state.broken = true;
        wake(&mut state.server_reader);
        wake(&mut state.server_writer);
        wake(&mut state.client_reader);
    }

    /// Returns the bytes that the transport has accepted.
    pub fn accepted(&self) -> Vec<u8> {
        self.state().accepted.clone()
    }

    pub fn accepted_length(&self) -> usize {
        self.state().accepted.len()
    }

    pub fn is_stuck(&self) -> bool {
        self.state().stuck
    }

    pub fn is_closed_by_server(&self) -> bool {
        self.state().server_closed
    }

    /// Yields until no task can continue without the test.
    ///
    /// On a runtime of one thread without active timers and sockets, only other tasks and the test
    /// wake a task. Each round polls the tasks that were woken in the previous one.
    pub async fn settle(&self) {
        let mut before = self.progress();
        let mut quiet = 0;
        while quiet < 30 {
            tokio::task::yield_now().await;
            let after = self.progress();
            quiet = if before == after { quiet + 1 } else { 0 };
            before = after;
        }
    }

    fn progress(&self) -> (usize, usize, usize, bool, bool) {
        let state = self.state();
        (
            state.accepted.len(),
            state.read,
            state.to_server.len(),
            state.stuck,
            state.server_closed,
        )
    }
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

pub struct ServerEnd(Window);

impl AsyncRead for ServerEnd {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut state = self.0.unbroken_state()?;
        if state.to_server.is_empty() && !state.client_closed {
            state.server_reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let length = buf.remaining().min(state.to_server.len());
        buf.put_slice(&state.to_server[..length]);
        state.to_server.drain(..length);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ServerEnd {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[io::IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut state = self.0.unbroken_state()?;
        let room = state.window - state.accepted.len();
        if room == 0 {
            return state.stick(cx);
        }
        state.stuck = false;
        let mut written = 0;
        for buf in bufs {
            let length = buf.len().min(room - written);
            state.accepted.extend_from_slice(&buf[..length]);
            written += length;
        }
        wake(&mut state.client_reader);
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.0.state().vectored
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.0.unbroken_state()?;
        if state.flush_is_shut {
            return state.stick(cx);
        }
        state.stuck = false;
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(cx)
    }
}

impl Drop for ServerEnd {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.server_closed = true;
        wake(&mut state.client_reader);
    }
}

pub struct ClientEnd(Window);

impl AsyncRead for ClientEnd {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut state = self.0.unbroken_state()?;
        let start = state.read;
        let length = buf.remaining().min(state.accepted.len() - start);
        if length == 0 && !state.server_closed {
            state.client_reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        buf.put_slice(&state.accepted[start..start + length]);
        state.read += length;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ClientEnd {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        drop(self.0.unbroken_state()?);
        self.0.send(buf);
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.0.state();
        state.client_closed = true;
        wake(&mut state.server_reader);
        Poll::Ready(Ok(()))
    }
}

/// Serves one connection with the public types of `sent`, like a custom accept loop.
pub fn serve_window(window: &Window, app: Router) -> JoinHandle<()> {
    let io = SentIo::new(window.server_end());
    let service = io
        .layer()
        .layer(app)
        .map_request(|request: Request<Incoming>| request.map(Body::new));
    tokio::spawn(async move {
        let _ = Builder::new(TokioExecutor::new())
            .serve_connection_with_upgrades(TokioIo::new(io), TowerToHyperService::new(service))
            .await;
    })
}

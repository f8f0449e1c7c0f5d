//! The IO of a connection, which counts written and flushed bytes, and a listener that wraps it.

use std::{
    fmt,
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

#[cfg(feature = "serve")]
use axum::serve::Listener;
use pin_project_lite::pin_project;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
#[cfg(feature = "serve")]
use tokio::sync::OwnedSemaphorePermit;

#[cfg(feature = "serve")]
use super::frames::FrameTracker;
use super::{connection::Connection, frames::WrittenFrames, layer::SentLayer};
#[cfg(feature = "serve")]
use crate::drain::Server;

pin_project! {
    /// A wrapper of the IO of one connection, which counts accepted and flushed bytes.
    ///
    /// Wrap what the HTTP server writes to. With TLS, this is the plaintext side, whose flush reaches
    /// the socket. Then put [`layer`](Self::layer) around the service of the same connection. Reads
    /// and writes pass through unchanged, at the cost of a few atomic counters.
    ///
    /// See [the module](crate::sent) for an example.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// use axum::{Router, routing::get};
    /// use axum_defer::{DeferLayer, sent::SentIo};
    /// use tower::Layer;
    ///
    /// let app: Router = Router::new().route("/", get(|| async { "hello" })).layer(DeferLayer::new());
    /// let (stream, _client) = tokio::io::duplex(1024);
    ///
    /// let mut io = SentIo::new(stream);
    /// let service = io.layer().layer(app);  // for this connection only
    /// // The wrapped IO stays accessible, for example for `TcpStream::set_nodelay`.
    /// let _stream: &tokio::io::DuplexStream = io.get_ref();
    /// let _stream: &mut tokio::io::DuplexStream = io.get_mut();
    /// # let _ = service;
    /// # }
    /// ```
    pub struct SentIo<I> {
        #[pin]
        io: I,
        guard: ConnectionGuard,
    }
}

/// A guard that aborts the responses that still wait when the IO is dropped.
struct ConnectionGuard {
    connection: Arc<Connection>,
    written: WrittenFrames,
    #[cfg(feature = "serve")]
    frames: Option<FrameTracker>,
    /// Bytes that were read to detect the protocol, and that the server has not seen.
    #[cfg(feature = "http2")]
    prefix: Vec<u8>,
    /// The connection's share of `max_connections`.
    #[cfg(feature = "serve")]
    _permit: Option<OwnedSemaphorePermit>,
}

impl ConnectionGuard {
    fn wrote(&mut self, polled: &Poll<io::Result<usize>>, bufs: &[IoSlice<'_>]) {
        self.connection
            .activity
            .set_write_blocked(polled.is_pending());
        if let Poll::Ready(Ok(written)) = polled {
            let mut rest = *written;
            let mut of_responses = 0;
            for buf in bufs {
                let accepted = &buf[..buf.len().min(rest)];
                of_responses += self.written.count(accepted);
                rest -= accepted.len();
            }
            let progress = &self.connection.progress;
            progress.add_written(*written, of_responses);
        }
    }

    fn read(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        self.connection.activity.add_read();
        #[cfg(feature = "serve")]
        if let Some(frames) = &mut self.frames {
            frames.read(bytes, &self.connection.activity);
        }
    }
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        self.connection.closed();
    }
}

impl<I> SentIo<I> {
    /// Wraps the IO of one connection.
    pub fn new(io: I) -> Self {
        Self {
            io,
            guard: ConnectionGuard {
                connection: Connection::new(),
                written: WrittenFrames::default(),
                #[cfg(feature = "serve")]
                frames: None,
                #[cfg(feature = "http2")]
                prefix: Vec::new(),
                #[cfg(feature = "serve")]
                _permit: None,
            },
        }
    }

    /// Wraps the IO of one connection of a server.
    #[cfg(feature = "serve")]
    pub(crate) fn served(io: I, server: Arc<Server>, permit: Option<OwnedSemaphorePermit>) -> Self {
        Self {
            io,
            guard: ConnectionGuard {
                connection: Connection::served(server),
                written: WrittenFrames::default(),
                frames: Some(FrameTracker::new()),
                #[cfg(feature = "http2")]
                prefix: Vec::new(),
                _permit: permit,
            },
        }
    }

    /// Returns the layer for the service of this connection. It must be the outermost layer.
    pub fn layer(&self) -> SentLayer {
        SentLayer::new(self.guard.connection.clone())
    }

    #[cfg(feature = "serve")]
    pub(crate) fn connection(&self) -> &Arc<Connection> {
        &self.guard.connection
    }

    /// Returns a reference to the wrapped IO.
    pub fn get_ref(&self) -> &I {
        &self.io
    }

    /// Returns a mutable reference to the wrapped IO. Bytes that are written to it directly are not
    /// counted.
    pub fn get_mut(&mut self) -> &mut I {
        &mut self.io
    }
}

#[cfg(feature = "http2")]
impl<I: AsyncRead + Unpin> SentIo<I> {
    /// Reads until the protocol is known, and returns `true` if it is HTTP/2. The server will also
    /// see these bytes.
    pub(crate) async fn is_http2(&mut self) -> io::Result<bool> {
        while self.guard.connection.is_protocol_unknown() {
            let mut bytes = [0; 24];
            let mut buf = ReadBuf::new(&mut bytes[self.guard.prefix.len()..]);
            std::future::poll_fn(|cx| Pin::new(&mut self.io).poll_read(cx, &mut buf)).await?;
            if buf.filled().is_empty() {
                // The client has closed the connection, or its sending half.
                break;
            }
            self.guard.read(buf.filled());
            self.guard.prefix.extend_from_slice(buf.filled());
        }
        Ok(self.guard.connection.is_http2())
    }
}

impl<I: AsyncRead> AsyncRead for SentIo<I> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.project();
        #[cfg(feature = "http2")]
        if !this.guard.prefix.is_empty() {
            let length = this.guard.prefix.len().min(buf.remaining());
            buf.put_slice(&this.guard.prefix[..length]);
            if length == this.guard.prefix.len() {
                this.guard.prefix = Vec::new();
            } else {
                this.guard.prefix.drain(..length);
            }
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        let polled = this.io.poll_read(cx, buf);
        let bytes = &buf.filled()[before..];
        if bytes.is_empty() {
            this.guard.connection.progress.begin_round();
        }
        ready!(polled)?;
        this.guard.read(bytes);
        Poll::Ready(Ok(()))
    }
}

impl<I: AsyncWrite> AsyncWrite for SentIo<I> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.project();
        let polled = this.io.poll_write(cx, buf);
        this.guard.wrote(&polled, &[IoSlice::new(buf)]);
        polled
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.project();
        let polled = this.io.poll_write_vectored(cx, bufs);
        this.guard.wrote(&polled, bufs);
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.project();
        let polled = this.io.poll_flush(cx);
        let connection = &this.guard.connection;
        connection.activity.set_write_blocked(polled.is_pending());
        if matches!(polled, Poll::Ready(Ok(()))) {
            connection.flushed();
        }
        polled
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // This is no flush: a server that has written all of a response has flushed it before.
        self.project().io.poll_shutdown(cx)
    }
}

impl<I: fmt::Debug> fmt::Debug for SentIo<I> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("SentIo")
            .field("io", &self.io)
            .finish_non_exhaustive()
    }
}

/// A listener that wraps every accepted connection in a [`SentIo`].
///
/// For accept loops of your own; [`serve`](crate::serve()) does this automatically.
///
/// ```no_run
/// use axum::serve::Listener;
/// use axum_defer::sent::SentListener;
/// use tower::Layer;
///
/// # async fn example(app: axum::Router) -> std::io::Result<()> {
/// let mut listener = SentListener::new(tokio::net::TcpListener::bind("127.0.0.1:3000").await?);
/// loop {
///     let (io, _) = listener.accept().await;
///     let service = io.layer().layer(app.clone());
///     // serve `io` with `service`, on a task
///     # let _ = service;
/// }
/// # }
/// ```
#[cfg(feature = "serve")]
pub struct SentListener<L> {
    listener: L,
}

#[cfg(feature = "serve")]
impl<L> SentListener<L> {
    /// Wraps a listener.
    pub fn new(listener: L) -> Self {
        Self { listener }
    }
}

#[cfg(feature = "serve")]
impl<L: Listener> Listener for SentListener<L> {
    type Io = SentIo<L::Io>;
    type Addr = L::Addr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        let (io, address) = self.listener.accept().await;
        (SentIo::new(io), address)
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

#[cfg(feature = "serve")]
impl<L: fmt::Debug> fmt::Debug for SentListener<L> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("SentListener")
            .field("listener", &self.listener)
            .finish_non_exhaustive()
    }
}

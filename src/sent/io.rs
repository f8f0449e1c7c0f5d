//! The IO of a connection, counting what is written and flushed.

use std::{
    fmt,
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::OwnedSemaphorePermit,
};

use super::{connection::Connection, layer::SentLayer};
use crate::drain::drain::Drain;

pin_project! {
    /// Wraps the IO of one connection, and sees when bytes have been accepted and flushed.
    ///
    /// Wrap what the HTTP server writes to: with TLS, the plaintext side, whose flush reaches the
    /// socket. Then put [`layer`](Self::layer) around the service of the same connection. Passes
    /// everything through; it costs a few atomic counters.
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
    /// let service = io.layer().layer(app);  // for this connection, and no other
    /// // Settings of the wrapped IO are still there: `TcpStream::set_nodelay`, say.
    /// let _stream: &tokio::io::DuplexStream = io.get_ref();
    /// let _stream: &mut tokio::io::DuplexStream = io.get_mut();
    /// # let _ = service;
    /// # }
    /// ```
    pub struct SentIo<I> {
        #[pin]
        io: I,
        connection: OpenConnection,
    }
}

/// Settles what still waits when the IO goes.
struct OpenConnection {
    connection: Arc<Connection>,
    /// The place that it takes up among the connections of its server.
    _place: Option<OwnedSemaphorePermit>,
}

impl OpenConnection {
    fn wrote(&self, polled: &Poll<io::Result<usize>>) {
        self.connection.dialogue.gets_on(polled.is_ready());
        if let Poll::Ready(Ok(written)) = polled {
            self.connection.wire.wrote(*written);
        }
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.connection.closed();
    }
}

impl<I> SentIo<I> {
    /// Wraps the IO of one connection.
    pub fn new(io: I) -> Self {
        Self::open(io, None, None)
    }

    #[cfg(feature = "serve")]
    pub(crate) fn served(
        io: I,
        draining: Arc<Drain>,
        place: Option<OwnedSemaphorePermit>,
    ) -> Self {
        Self::open(io, Some(draining), place)
    }

    fn open(io: I, draining: Option<Arc<Drain>>, place: Option<OwnedSemaphorePermit>) -> Self {
        Self {
            io,
            connection: OpenConnection {
                connection: Connection::new(draining),
                _place: place,
            },
        }
    }

    /// The layer that belongs around the service of this connection, outside of everything else.
    pub fn layer(&self) -> SentLayer {
        SentLayer::new(self.connection.connection.clone())
    }

    #[cfg(feature = "serve")]
    pub(crate) fn connection(&self) -> &Arc<Connection> {
        &self.connection.connection
    }

    /// The wrapped IO.
    pub fn get_ref(&self) -> &I {
        &self.io
    }

    /// The wrapped IO. What is written to it directly is not counted.
    pub fn get_mut(&mut self) -> &mut I {
        &mut self.io
    }
}

impl<I: AsyncRead> AsyncRead for SentIo<I> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.project();
        let connection = &this.connection.connection;
        connection.wire.reading();
        let before = buf.filled().len();
        ready!(this.io.poll_read(cx, buf))?;
        if buf.filled().len() > before {
            connection.dialogue.read();
        }
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
        this.connection.wrote(&polled);
        polled
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.project();
        let polled = this.io.poll_write_vectored(cx, bufs);
        this.connection.wrote(&polled);
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.project();
        let polled = this.io.poll_flush(cx);
        let connection = &this.connection.connection;
        connection.dialogue.gets_on(polled.is_ready());
        if matches!(polled, Poll::Ready(Ok(()))) {
            connection.flushed();
        }
        polled
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // No flush: what the server has not written by now it never will. A server that has
        // written all of a response has flushed the connection before.
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

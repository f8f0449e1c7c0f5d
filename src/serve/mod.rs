#![doc = include_str!("../../docs/serve.md")]

use std::{
    convert::Infallible,
    fmt,
    future::{Future, IntoFuture},
    io,
    sync::Arc,
    time::Duration,
};

use axum::{extract::Request, serve::Listener};
use http::Response;
use hyper_util::{rt::TokioExecutor, server::conn::auto::Builder};
use tokio::sync::Semaphore;
use tower_service::Service;

use self::accepting::{Accepting, Connections};
#[doc(no_inline)]
pub use self::shutdown::Shutdown;
pub use self::{
    incoming_stream::IncomingStream, serve_future::ServeFuture, shutdown::ShutdownRejection,
    with_graceful_shutdown::WithGracefulShutdown,
};
use crate::{callback::output::BoxError, drain::drain::Drain, never::Never};

mod accepting;
mod app;
mod connection;
mod head_timeout;
mod in_span;
mod incoming_stream;
mod layered;
mod request_body;
mod serve_future;
pub(crate) mod shutdown;
mod stop;
mod under_axum;
mod with_graceful_shutdown;

/// Serves an app like [`axum::serve()`], so that callbacks wait until the response has left the
/// process, and a shutdown waits for callbacks.
///
/// Takes what `axum::serve` takes (any [`Listener`]; a `Router`, a `MethodRouter`, a handler, or
/// a make-service with connect info), and any of it with a
/// [layer around it](crate::DeferLayer::layer); and serves HTTP/1.1 and HTTP/2. It never returns,
/// unless it is [told to](Serve::with_graceful_shutdown):
///
/// ```no_run
/// use axum::{Router, routing::get};
/// use axum_defer::{DeferLayer, defer};
///
/// async fn handler() -> &'static str {
///     defer(async { println!("the client has it, or the kernel does") });
///     "hello"
/// }
///
/// #[tokio::main]
/// async fn main() -> std::io::Result<()> {
///     let app = Router::new().route("/", get(handler));
///     let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
///     axum_defer::serve(listener, DeferLayer::new().layer(app)).await
/// }
/// ```
///
/// [The module](mod@crate::serve) tells the rest: [where the layer
/// goes](mod@crate::serve#where-the-layer-goes), [settings](mod@crate::serve#settings), [slow
/// clients](mod@crate::serve#slow-clients), [the shutdown](mod@crate::serve#shutdown),
/// [TLS](mod@crate::serve#tls), [Unix sockets](mod@crate::serve#unix-sockets), [other
/// servers](mod@crate::serve#other-servers), and [the differences from
/// `axum::serve`](mod@crate::serve#differences-from-axumserve).
///
/// # Panics
///
/// The server panics when it is awaited outside of a Tokio runtime whose time driver is enabled.
pub fn serve<L, M, S, B>(listener: L, make_service: M) -> Serve<L, M, S, B>
where
    L: Listener,
    M: for<'a> Service<IncomingStream<'a, L>, Error = Infallible, Response = S>,
    S: Service<Request, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    B: http_body::Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    Serve {
        accepting: Accepting::new(listener, make_service),
    }
}

/// A server that is ready to run: await it. Made by [`serve()`].
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// use axum::Router;
///
/// let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
/// let server = axum_defer::serve(listener, Router::new()).max_connections(10_000);
/// println!("http://{}", server.local_addr().unwrap());
/// let serving = tokio::spawn(server.into_future());
/// // It serves until it is dropped.
/// serving.abort();
/// # }
/// ```
#[must_use = "a server does nothing until it is awaited"]
pub struct Serve<L, M, S, B> {
    accepting: Accepting<L, M, S, B>,
}

impl<L, M, S, B> Serve<L, M, S, B> {
    /// Shuts down when `signal` is ready, and returns a [`DrainReport`](crate::DrainReport).
    ///
    /// The server stops accepting, [tells those who want to know](crate::Shutdown), lets responses
    /// in flight finish, waits for whoever has a `Shutdown`, and for callbacks: all of it within
    /// the [`drain_timeout`](WithGracefulShutdown::drain_timeout). [The
    /// module](mod@crate::serve#shutdown) has the details.
    ///
    /// ```no_run
    /// use std::{process::ExitCode, time::Duration};
    /// # use axum::Router;
    ///
    /// async fn stop_signal() {
    ///     let _ = tokio::signal::ctrl_c().await;
    /// }
    ///
    /// # async fn example(listener: tokio::net::TcpListener, app: Router) -> ExitCode {
    /// let report = axum_defer::serve(listener, app)
    ///     .with_graceful_shutdown(stop_signal())
    ///     .drain_timeout(Duration::from_secs(20))
    ///     .await;
    /// println!("{report}");
    /// if report.is_complete() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    /// # }
    /// ```
    pub fn with_graceful_shutdown<F>(self, signal: F) -> WithGracefulShutdown<L, M, S, B, F>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        WithGracefulShutdown::new(self.accepting, signal)
    }

    /// Sets what hyper can have set, for HTTP/1 and HTTP/2.
    ///
    /// There is a timer already, so time-outs and pings may be set. hyper's own
    /// `header_read_timeout` is off, as [`Serve::header_read_timeout`] is cheaper and covers more; if it
    /// is set here, both apply. May be called several times.
    ///
    /// ```no_run
    /// use std::time::Duration;
    /// # use axum::Router;
    ///
    /// # async fn example(listener: tokio::net::TcpListener, app: Router) {
    /// axum_defer::serve(listener, app)
    ///     .configure(|builder| {
    ///         builder.http1().max_headers(64);
    ///         // Clients that are gone without a word are found within half a minute.
    ///         builder
    ///             .http2()
    ///             .keep_alive_interval(Duration::from_secs(20))
    ///             .keep_alive_timeout(Duration::from_secs(10))
    ///             .max_concurrent_streams(128);
    ///     })
    ///     .await
    /// # }
    /// ```
    pub fn configure<F>(mut self, configure: F) -> Self
    where
        F: FnOnce(&mut Builder<TokioExecutor>),
    {
        configure(&mut self.accepting.builder);
        self
    }

    /// How long the head of a request may take; 30 seconds by default, as in hyper, and with `None` for
    /// ever, as in `axum::serve`.
    ///
    /// The connection is closed then, without an answer. The time of the first request starts with the
    /// connection, whichever version of HTTP it is for, and that of each further one over HTTP/1 when the
    /// response before it has left the process: so this is also for how long a client may be connected
    /// and say nothing. HTTP/2, once it has begun, has its pings for that: see
    /// [`configure`](Self::configure).
    ///
    /// Of a request whose response has left the process before its body has come, the rest of the body
    /// may come: while the app waits for it, it may not pause for so long. While the app has such a
    /// body and does not read it, it is not the client that is awaited, and there is no time-out; it may
    /// begin up to as long after that.
    ///
    /// ```no_run
    /// use std::time::Duration;
    /// # use axum::Router;
    ///
    /// # async fn example(listener: tokio::net::TcpListener, app: Router) {
    /// axum_defer::serve(listener, app)
    ///     .header_read_timeout(Duration::from_secs(10))
    ///     .await
    /// # }
    /// ```
    pub fn header_read_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.accepting.header_read_timeout = timeout.into();
        self
    }

    /// Has at most `connections` connections open at a time; there is no limit by default.
    ///
    /// While there are as many, none is accepted: further clients wait in the backlog of the
    /// listener, which the operating system bounds. An upgraded connection counts until its IO is
    /// dropped. What a listener does before it hands a connection out, shaking hands say, is its
    /// own business.
    ///
    /// # Panics
    ///
    /// If `connections` is 0, or above [`Semaphore::MAX_PERMITS`].
    pub fn max_connections(mut self, connections: usize) -> Self {
        assert!(
            connections > 0,
            "with `max_connections(0)` nobody would ever be served"
        );
        self.accepting.places = Some(Arc::new(Semaphore::new(connections)));
        self
    }
}

impl<L: Listener, M, S, B> Serve<L, M, S, B> {
    /// The address that the server listens on.
    ///
    /// # Errors
    ///
    /// Those of [`Listener::local_addr`].
    pub fn local_addr(&self) -> io::Result<L::Addr> {
        self.accepting.listener.local_addr()
    }
}

impl<L, M, S, B> IntoFuture for Serve<L, M, S, B>
where
    L: Listener<Addr: fmt::Debug>,
    M: for<'a> Service<IncomingStream<'a, L>, Error = Infallible, Response = S> + Send + 'static,
    for<'a> <M as Service<IncomingStream<'a, L>>>::Future: Send,
    S: Service<Request, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    B: http_body::Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    /// The type `!`: it never returns.
    type Output = Never;
    type IntoFuture = ServeFuture<Never>;

    fn into_future(self) -> ServeFuture<Never> {
        ServeFuture::new(async move {
            let mut connections = Connections::new(Drain::default());
            self.accepting.accept_into(&mut connections).await
        })
    }
}

impl<L: fmt::Debug, M, S, B> fmt::Debug for Serve<L, M, S, B> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Serve")
            .field("listener", &self.accepting.listener)
            .finish_non_exhaustive()
    }
}

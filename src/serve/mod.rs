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
use hyper::server::conn::http1;
#[cfg(feature = "http2")]
use hyper::server::conn::http2;
#[cfg(feature = "http2")]
use hyper_util::rt::TokioExecutor;
use tokio::{sync::Semaphore, task::JoinSet};
use tower_service::Service;

use self::accept::Acceptor;
#[doc(no_inline)]
pub use self::shutdown::{Shutdown, ShutdownObserver};
pub use self::{
    graceful::{ServeFuture, WithGracefulShutdown},
    make_service::IncomingStream,
    shutdown::ShutdownRejection,
};
use crate::{DeferHandle, callback::output::BoxError};

mod accept;
mod connection;
mod graceful;
mod make_service;
pub(crate) mod os_signal;
mod service;
pub(crate) mod shutdown;
mod timeouts;

/// Serves an app like [`axum::serve()`], but callbacks run after the operating system has accepted the
/// last byte of the response, and a graceful shutdown waits for callbacks.
///
/// It accepts what `axum::serve` accepts: any [`Listener`], and a `Router`, a `MethodRouter`, a handler,
/// or a make-service with connect info. Each of these may have a
/// [layer around it](crate::DeferLayer::layer). It serves HTTP/1.1, and HTTP/2 with the feature `http2`.
///
/// Like `axum::serve`, it never returns without a
/// [graceful shutdown](Serve::with_graceful_shutdown), and never returns an error:
///
/// ```no_run
/// use axum::{Router, routing::get};
/// use axum_defer::{DeferLayer, defer};
///
/// async fn handler() -> &'static str {
///     defer(async { println!("the operating system has accepted the response") });
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
/// See [the module](mod@crate::serve) for [the differences from
/// `axum::serve`](mod@crate::serve#differences-from-axumserve),
/// [settings](mod@crate::serve#settings), [layer placement](mod@crate::serve#layer-placement),
/// [TLS](mod@crate::serve#tls), [Unix sockets](mod@crate::serve#unix-sockets), and [other
/// servers](mod@crate::serve#other-servers).
///
/// # Panics
///
/// The server panics if it is awaited outside a Tokio runtime whose time driver is enabled.
pub fn serve<L, M, S, B>(listener: L, make_service: M) -> Serve<L, M, S, B>
where
    L: Listener,
    M: for<'a> Service<IncomingStream<'a, L>, Error = Infallible, Response = S>,
    S: Service<Request, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    B: http_body::Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    Serve {
        acceptor: Acceptor::new(listener, make_service),
    }
}

/// A server that is ready to run: await it. Created by [`serve()`].
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// use axum::Router;
///
/// let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
/// let server = axum_defer::serve(listener, Router::new()).max_connections(10_000);
/// println!("http://{}", server.local_addr()?);
/// let serving = tokio::spawn(server.into_future());
/// // Serves until it is dropped.
/// serving.abort();
/// # Ok(()) }
/// ```
#[must_use = "a server does nothing until it is awaited"]
pub struct Serve<L, M, S, B> {
    acceptor: Acceptor<L, M, S, B>,
}

impl<L, M, S, B> Serve<L, M, S, B> {
    /// Shuts down when `signal` completes, and returns a [`DrainReport`](crate::DrainReport).
    ///
    /// The server stops accepting, notifies the holders of a [`Shutdown`], lets responses finish, waits
    /// until every `Shutdown` is dropped, and drains the callbacks, all within the
    /// [`drain_timeout`](WithGracefulShutdown::drain_timeout). See [the guide](crate::guide::shutdown).
    ///
    /// ```no_run
    /// use std::{process::ExitCode, time::Duration};
    /// # use axum::Router;
    ///
    /// # async fn example(listener: tokio::net::TcpListener, app: Router) -> std::io::Result<ExitCode> {
    /// let report = axum_defer::serve(listener, app)
    ///     .with_graceful_shutdown(axum_defer::shutdown_signal())
    ///     .drain_timeout(Duration::from_secs(20))
    ///     .await?;
    /// println!("{report}");
    /// # Ok(
    /// if report.is_complete() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    /// # )
    /// # }
    /// ```
    pub fn with_graceful_shutdown<F>(self, signal: F) -> WithGracefulShutdown<L, M, S, B, F>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        WithGracefulShutdown::new(self.acceptor, signal)
    }

    /// Adds a layer to the drain of a graceful shutdown; without one, it has no effect.
    ///
    /// Layers that a request of this server passes through are added automatically. This is for layers
    /// that are used outside requests only, for example with [`DeferLayer::scope`] in a queue
    /// worker.
    ///
    /// [`DeferLayer::scope`]: crate::DeferLayer::scope
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> std::io::Result<()> {
    /// use axum::Router;
    /// use axum_defer::{DeferLayer, defer};
    ///
    /// let jobs = DeferLayer::new();
    /// let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    /// let server = axum_defer::serve(listener, Router::new()).drain(jobs.handle());
    /// tokio::spawn(jobs.scope(async { defer(async {}); }));
    ///
    /// let report = server.with_graceful_shutdown(async {}).await?;
    /// assert!(report.is_complete());
    /// # Ok(()) }
    /// ```
    pub fn drain(mut self, handle: DeferHandle) -> Self {
        self.acceptor.handles.push(handle);
        self
    }

    /// Returns the [`Shutdown`] of this server, for background tasks. The server waits until it is
    /// dropped.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> std::io::Result<()> {
    /// use axum::Router;
    ///
    /// let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    /// let server = axum_defer::serve(listener, Router::new());
    /// let mut shutdown = server.shutdown();
    /// tokio::spawn(async move {
    ///     (&mut shutdown).await;
    ///     // Finish the current batch. The server waits until `shutdown` is dropped.
    /// });
    ///
    /// server.with_graceful_shutdown(async {}).await?;
    /// # Ok(()) }
    /// ```
    pub fn shutdown(&self) -> Shutdown {
        Shutdown::new(&self.acceptor.shutdown)
    }

    /// Returns a future that completes when this server shuts down, like [`shutdown`](Self::shutdown),
    /// but the server does not wait for it.
    ///
    /// ```no_run
    /// # async fn example(listener: tokio::net::TcpListener) -> std::io::Result<()> {
    /// let server = axum_defer::serve(listener, axum::Router::new());
    /// let observer = server.shutdown_observer();
    /// assert!(!observer.is_shutting_down());
    /// tokio::spawn(async move {
    ///     observer.await;
    ///     println!("the server shuts down");
    /// });
    /// server.with_graceful_shutdown(async {}).await?;
    /// # Ok(()) }
    /// ```
    pub fn shutdown_observer(&self) -> ShutdownObserver {
        ShutdownObserver::new(&self.acceptor.shutdown)
    }

    /// Changes hyper's settings for HTTP/1.
    ///
    /// A timer is already installed. hyper's own `header_read_timeout` is off, because
    /// [`Serve::header_read_timeout`] is cheaper and covers more; if it is set here, both apply. May be
    /// called several times.
    ///
    /// ```no_run
    /// # use axum::Router;
    /// # async fn example(listener: tokio::net::TcpListener, app: Router) -> std::io::Result<()> {
    /// axum_defer::serve(listener, app)
    ///     .configure_http1(|http1| {
    ///         http1.max_headers(64);
    ///     })
    ///     .await
    /// # }
    /// ```
    pub fn configure_http1(mut self, configure: impl FnOnce(&mut http1::Builder)) -> Self {
        configure(&mut self.acceptor.settings.http1);
        self
    }

    /// Changes hyper's settings for HTTP/2.
    ///
    /// A timer is already installed, so timeouts and pings may be set. May be called several times.
    ///
    /// ```no_run
    /// # async fn example(listener: tokio::net::TcpListener, app: axum::Router) -> std::io::Result<()> {
    /// use std::time::Duration;
    ///
    /// axum_defer::serve(listener, app)
    ///     .configure_http2(|http2| {
    ///         // Detects clients that are gone without closing the connection within 30 seconds.
    ///         http2
    ///             .keep_alive_interval(Duration::from_secs(20))
    ///             .keep_alive_timeout(Duration::from_secs(10))
    ///             .max_concurrent_streams(128);
    ///     })
    ///     .await
    /// # }
    /// ```
    #[cfg(feature = "http2")]
    pub fn configure_http2(
        mut self,
        configure: impl FnOnce(&mut http2::Builder<TokioExecutor>),
    ) -> Self {
        configure(&mut self.acceptor.settings.http2);
        self
    }

    /// Sets how long the head of a request may take; 30 seconds by default, `None` for no limit.
    ///
    /// The time starts with the first byte of the head, and with the connection for the first request.
    /// Over HTTP/2, it also covers the preface, the first SETTINGS frame, and header blocks of several
    /// frames. After this time, the connection is closed without a response. Over HTTP/2, this also
    /// ends its other streams.
    ///
    /// It does not limit request bodies; use a timeout layer for those.
    ///
    /// ```no_run
    /// use std::time::Duration;
    /// # use axum::Router;
    ///
    /// # async fn example(listener: tokio::net::TcpListener, app: Router) -> std::io::Result<()> {
    /// axum_defer::serve(listener, app)
    ///     .header_read_timeout(Duration::from_secs(10))
    ///     .await
    /// # }
    /// ```
    pub fn header_read_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.acceptor.settings.timeouts.header_read = timeout.into();
        self
    }

    /// Sets how long a connection without a request may stay open; 620 seconds by default, `None` for
    /// no limit.
    ///
    /// Behind a load balancer, it must be longer than the balancer's own keep-alive timeout. Otherwise
    /// the server closes connections that the balancer is about to use, and its clients see sporadic
    /// errors (502). See [the values of common platforms](crate::guide::platforms#idle-timeouts).
    ///
    /// A request lasts until its response is written, and its body is read or dropped by the app. If the
    /// app still waits for the body after the response, the client may pause for this time. Over HTTP/2,
    /// pings do not count as requests, and the connection is closed with GOAWAY.
    ///
    /// ```no_run
    /// # use std::time::Duration;
    /// # use axum::Router;
    /// # async fn example(listener: tokio::net::TcpListener, app: Router) -> std::io::Result<()> {
    /// axum_defer::serve(listener, app)
    ///     .idle_timeout(Duration::from_secs(75))
    ///     .await
    /// # }
    /// ```
    pub fn idle_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.acceptor.settings.timeouts.idle = timeout.into();
        self
    }

    /// Sets how long the transport may accept no byte of a response although there are bytes to send;
    /// 60 seconds by default, `None` for no limit.
    ///
    /// This ends the responses of clients that stop reading. Their callbacks run with
    /// [`Delivery::Aborted`](crate::Delivery::Aborted). A slow client that makes progress is never
    /// affected, and the time does not run while the response body itself is pending.
    ///
    /// If the connection accepts nothing, it is closed. If only an HTTP/2 stream has no flow-control
    /// window, its scope is decided as aborted and the stream stays open, because hyper cannot reset it.
    /// The response continues if the client opens the window later, except with
    /// [`finish_body`](crate::DeferLayer::finish_body): then the rest of the body goes to the task that
    /// discards it, and the client receives nothing more. A stall is detected up to an eighth of the
    /// timeout late.
    ///
    /// ```no_run
    /// # use std::time::Duration;
    /// # use axum::Router;
    /// # async fn example(listener: tokio::net::TcpListener, app: Router) -> std::io::Result<()> {
    /// axum_defer::serve(listener, app)
    ///     .stall_timeout(Duration::from_secs(20))
    ///     .await
    /// # }
    /// ```
    pub fn stall_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.acceptor.settings.timeouts.stall = timeout.into();
        self
    }

    /// Limits the number of open connections; there is no limit by default.
    ///
    /// While the limit is reached, no connection is accepted, and clients wait in the backlog of the
    /// listener, which the operating system bounds. An upgraded connection counts until its IO is
    /// dropped. Handshakes that a listener performs before it returns a connection do not count.
    ///
    /// # Panics
    ///
    /// Panics if `connections` is 0, or above [`Semaphore::MAX_PERMITS`].
    pub fn max_connections(mut self, connections: usize) -> Self {
        assert!(
            connections > 0,
            "`max_connections(0)` would never accept a connection"
        );
        self.acceptor.max_connections = Some(Arc::new(Semaphore::new(connections)));
        self
    }
}

impl<L: Listener, M, S, B> Serve<L, M, S, B> {
    /// Returns the address that the server listens on.
    ///
    /// # Errors
    ///
    /// Returns the error of [`Listener::local_addr`].
    pub fn local_addr(&self) -> io::Result<L::Addr> {
        self.acceptor.listener.local_addr()
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
    /// It never returns; the type is that of `axum::serve`.
    type Output = io::Result<()>;
    type IntoFuture = ServeFuture<()>;

    fn into_future(self) -> ServeFuture<()> {
        ServeFuture::new(async move {
            let server = self.acceptor.server(None);
            self.acceptor.run(server, &mut JoinSet::new()).await
        })
    }
}

impl<L: fmt::Debug, M, S, B> fmt::Debug for Serve<L, M, S, B> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Serve")
            .field("listener", &self.acceptor.listener)
            .finish_non_exhaustive()
    }
}

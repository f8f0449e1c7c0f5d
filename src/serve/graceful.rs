//! A server with a graceful shutdown, and the future of a server.

use std::{
    convert::Infallible,
    fmt,
    future::{Future, IntoFuture},
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use axum::{extract::Request, serve::Listener};
use http::Response;
use tokio::{task::JoinSet, time::Instant};
use tower_service::Service;

use super::{accept::Acceptor, make_service::IncomingStream};
use crate::{
    callback::output::BoxError,
    drain::{Drain, Server, report::DrainReport, timeout_at},
};

const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);

/// A server that shuts down when its signal completes. Created by
/// [`Serve::with_graceful_shutdown`](super::Serve::with_graceful_shutdown).
///
/// Awaiting it returns `Ok` with the [`DrainReport`] after the shutdown. It never returns an error;
/// accept errors are handled by the listener, as in `axum::serve`.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// use std::time::Duration;
/// use axum::Router;
///
/// let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
/// let (stop, stopped) = tokio::sync::oneshot::channel();
/// let server = axum_defer::serve(listener, Router::new())
///     .with_graceful_shutdown(async { stopped.await.unwrap_or_default() })
///     .drain_timeout(Duration::from_secs(25))
///     .connection_timeout(Duration::from_secs(15));
/// println!("http://{}", server.local_addr()?);
///
/// stop.send(()).unwrap();
/// assert!(server.await?.is_complete());
/// # Ok(()) }
/// ```
#[must_use = "a server does nothing until it is awaited"]
pub struct WithGracefulShutdown<L, M, S, B, F> {
    acceptor: Acceptor<L, M, S, B>,
    signal: F,
    timeouts: Timeouts,
}

#[derive(Clone, Copy)]
struct Timeouts {
    drain: Duration,
    connection: Option<Duration>,
}

impl<L, M, S, B, F> WithGracefulShutdown<L, M, S, B, F> {
    pub(super) fn new(acceptor: Acceptor<L, M, S, B>, signal: F) -> Self {
        let timeouts = Timeouts {
            drain: DRAIN_TIMEOUT,
            connection: None,
        };
        Self {
            acceptor,
            signal,
            timeouts,
        }
    }

    /// Sets the time for the whole shutdown, from the signal to the return; 30 seconds by default.
    ///
    /// At the deadline, open connections are aborted, and unfinished callbacks are listed in the
    /// report. They continue for as long as the runtime does. With [`Duration::MAX`] there is no
    /// deadline.
    ///
    /// Set it below the time that the process supervisor waits before it kills the process.
    ///
    /// The timeout does not bound [`defer_blocking`](crate::defer_blocking) at process exit: under
    /// `#[tokio::main]`, the runtime waits for blocking work without a limit when `main` returns. Build
    /// the runtime yourself, and end it with `shutdown_timeout`, to bound that:
    ///
    /// ```no_run
    /// use std::time::Duration;
    /// # async fn run() -> std::io::Result<()> { Ok(()) }
    ///
    /// fn main() -> std::io::Result<()> {
    ///     let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    ///     let result = runtime.block_on(run()); // serves and drains
    ///     runtime.shutdown_timeout(Duration::from_secs(5));
    ///     result
    /// }
    /// ```
    pub fn drain_timeout(mut self, timeout: Duration) -> Self {
        self.timeouts.drain = timeout;
        self
    }

    /// Sets the time that open connections have to finish; nine tenths of the
    /// [`drain_timeout`](Self::drain_timeout) by default.
    ///
    /// Responses that never end (for example server-sent events without a
    /// [`Shutdown`](crate::Shutdown)) are aborted then, and their callbacks have the rest of the time.
    /// Connections on which the body of a request is incomplete are aborted too.
    pub fn connection_timeout(mut self, timeout: Duration) -> Self {
        self.timeouts.connection = Some(timeout);
        self
    }
}

impl<L: Listener, M, S, B, F> WithGracefulShutdown<L, M, S, B, F> {
    /// Returns the address that the server listens on.
    ///
    /// # Errors
    ///
    /// Returns the error of [`Listener::local_addr`].
    pub fn local_addr(&self) -> io::Result<L::Addr> {
        self.acceptor.listener.local_addr()
    }
}

impl<L, M, S, B, F> IntoFuture for WithGracefulShutdown<L, M, S, B, F>
where
    L: Listener<Addr: fmt::Debug>,
    M: for<'a> Service<IncomingStream<'a, L>, Error = Infallible, Response = S> + Send + 'static,
    for<'a> <M as Service<IncomingStream<'a, L>>>::Future: Send,
    S: Service<Request, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    B: http_body::Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    type Output = io::Result<DrainReport>;
    type IntoFuture = ServeFuture<DrainReport>;

    fn into_future(self) -> ServeFuture<DrainReport> {
        let Self {
            acceptor,
            signal,
            timeouts,
        } = self;
        ServeFuture::new(async move {
            let server = acceptor.server(Some(Drain::default()));
            let mut tasks = JoinSet::new();
            // Counts from here on, because the shutdown begins when the acceptor is dropped.
            let signal = async {
                signal.await;
                if let Some(drain) = &server.drain {
                    drain.start();
                }
            };
            // Dropping the future that accepts closes the listener, and begins the shutdown.
            tokio::select! {
                biased;
                () = signal => {}
                never = acceptor.run(server.clone(), &mut tasks) => never,
            }
            Ok(shut_down(&server, tasks, timeouts).await)
        })
    }
}

async fn shut_down(server: &Server, mut tasks: JoinSet<()>, timeouts: Timeouts) -> DrainReport {
    let start = Instant::now();
    let after = |timeout: Duration| start.checked_add(timeout);
    let deadline = after(timeouts.drain);
    let connection_timeout = timeouts
        .connection
        .unwrap_or(timeouts.drain / 10 * 9)
        .min(timeouts.drain);

    let mut aborted = 0;
    let all_closed = async { while tasks.join_next().await.is_some() {} };
    if !timeout_at(after(connection_timeout), all_closed).await {
        tasks.abort_all();
        timeout_at(deadline, async {
            while let Some(ended) = tasks.join_next().await {
                aborted += u64::from(ended.is_err_and(|error| error.is_cancelled()));
            }
        })
        .await;
        aborted += tasks.len() as u64;
    }
    timeout_at(deadline, async {
        server.shutdown.wait_for_guards().await;
        if let Some(drain) = &server.drain {
            drain.wait_idle().await;
        }
    })
    .await;

    let mut report = server.drain.as_ref().map(Drain::report).unwrap_or_default();
    report.aborted_connections = aborted;
    report.shutdown_guards = server.shutdown.guards() as u64;
    report
}

impl<L: fmt::Debug, M, S, B, F> fmt::Debug for WithGracefulShutdown<L, M, S, B, F> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("WithGracefulShutdown")
            .field("listener", &self.acceptor.listener)
            .field("drain_timeout", &self.timeouts.drain)
            .field("connection_timeout", &self.timeouts.connection)
            .finish_non_exhaustive()
    }
}

/// The future of [`Serve`](super::Serve) and [`WithGracefulShutdown`](super::WithGracefulShutdown).
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// use axum::Router;
/// use axum_defer::{DrainReport, serve::ServeFuture};
///
/// let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
/// let server = axum_defer::serve(listener, Router::new()).with_graceful_shutdown(async {});
/// let future: ServeFuture<DrainReport> = server.into_future();
/// assert!(future.await?.is_complete());
/// # Ok(()) }
/// ```
#[must_use = "a server does nothing until it is awaited"]
pub struct ServeFuture<T>(Pin<Box<dyn Future<Output = io::Result<T>> + Send>>);

impl<T> ServeFuture<T> {
    pub(super) fn new(serving: impl Future<Output = io::Result<T>> + Send + 'static) -> Self {
        Self(Box::pin(serving))
    }
}

impl<T> Future for ServeFuture<T> {
    type Output = io::Result<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        self.0.as_mut().poll(cx)
    }
}

impl<T> fmt::Debug for ServeFuture<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("ServeFuture")
            .finish_non_exhaustive()
    }
}

//! A server that stops when it is told to, and waits for what is under way.

use std::{
    convert::Infallible,
    fmt,
    future::{Future, IntoFuture},
    io,
    time::Duration,
};

use axum::{extract::Request, serve::Listener};
use http::Response;
use tokio::time::Instant;
use tower_service::Service;

use super::{
    accepting::{Accepting, Connections},
    incoming_stream::IncomingStream,
    serve_future::ServeFuture,
};
use crate::{
    callback::output::BoxError,
    drain::{deadline::timeout_at, drain::Drain, report::DrainReport},
};

const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);

/// A server that shuts down when its signal is ready: await it, and get the [`DrainReport`]. Made
/// by [`Serve::with_graceful_shutdown`](super::Serve::with_graceful_shutdown), which says what
/// happens when.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// use std::time::Duration;
/// use axum::Router;
///
/// let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
/// let (stop, stopped) = tokio::sync::oneshot::channel();
/// let server = axum_defer::serve(listener, Router::new())
///     .with_graceful_shutdown(async { stopped.await.unwrap_or_default() })
///     .drain_timeout(Duration::from_secs(25))
///     .connection_timeout(Duration::from_secs(15));
/// println!("http://{}", server.local_addr().unwrap());
///
/// stop.send(()).unwrap();
/// assert!(server.await.is_complete());
/// # }
/// ```
#[must_use = "a server does nothing until it is awaited"]
pub struct WithGracefulShutdown<L, M, S, B, F> {
    accepting: Accepting<L, M, S, B>,
    signal: F,
    timeouts: Timeouts,
}

#[derive(Clone, Copy)]
struct Timeouts {
    drain: Duration,
    connection: Option<Duration>,
}

impl<L, M, S, B, F> WithGracefulShutdown<L, M, S, B, F> {
    pub(super) fn new(accepting: Accepting<L, M, S, B>, signal: F) -> Self {
        let timeouts = Timeouts {
            drain: DRAIN_TIMEOUT,
            connection: None,
        };
        Self {
            accepting,
            signal,
            timeouts,
        }
    }

    /// The time for all of the shutdown, from the signal to the return; 30 seconds by default.
    ///
    /// At the deadline, connections that are still open are cut, and callbacks that are not
    /// finished stand in the report. They go on for as long as the runtime does. With
    /// [`Duration::MAX`] there is no deadline.
    ///
    /// Set it below the time that the process supervisor grants before it kills.
    pub fn drain_timeout(mut self, timeout: Duration) -> Self {
        self.timeouts.drain = timeout;
        self
    }

    /// The part of the shutdown's time that connections have to finish; nine tenths of the
    /// [`drain_timeout`](Self::drain_timeout) by default.
    ///
    /// A response that never ends (server-sent events without a [`Shutdown`](crate::Shutdown),
    /// say) is cut then, and what it deferred has the rest of the time to run. So is a connection
    /// whose client has sent the head of a request and not yet all of its body.
    pub fn connection_timeout(mut self, timeout: Duration) -> Self {
        self.timeouts.connection = Some(timeout);
        self
    }
}

impl<L: Listener, M, S, B, F> WithGracefulShutdown<L, M, S, B, F> {
    /// The address that the server listens on.
    ///
    /// # Errors
    ///
    /// Those of [`Listener::local_addr`].
    pub fn local_addr(&self) -> io::Result<L::Addr> {
        self.accepting.listener.local_addr()
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
    type Output = DrainReport;
    type IntoFuture = ServeFuture<DrainReport>;

    fn into_future(self) -> ServeFuture<DrainReport> {
        let Self {
            accepting,
            signal,
            timeouts,
        } = self;
        ServeFuture::new(async move {
            let mut connections = Connections::new(Drain::with_report());
            // The listener goes with the future that accepts.
            tokio::select! {
                biased;
                () = signal => {}
                never = accepting.accept_into(&mut connections) => never,
            }
            shut_down(connections, timeouts).await
        })
    }
}

async fn shut_down(connections: Connections, timeouts: Timeouts) -> DrainReport {
    let Connections {
        mut tasks,
        draining,
        ..
    } = connections;
    draining.start();
    draining.stopping.begin();
    let start = Instant::now();
    let after = |timeout: Duration| start.checked_add(timeout);
    let deadline = after(timeouts.drain);
    let connection_timeout = timeouts
        .connection
        .unwrap_or(timeouts.drain / 10 * 9)
        .min(timeouts.drain);

    let mut cut = 0;
    let all_closed = async { while tasks.join_next().await.is_some() {} };
    if !timeout_at(after(connection_timeout), all_closed).await {
        tasks.abort_all();
        timeout_at(deadline, async {
            while let Some(ended) = tasks.join_next().await {
                cut += u64::from(ended.is_err_and(|error| error.is_cancelled()));
            }
        })
        .await;
        cut += tasks.len() as u64;
    }
    timeout_at(deadline, async {
        draining.stopping.wait_for_holders().await;
        draining.wait_idle().await;
    })
    .await;

    let mut report = draining.report();
    report.aborted_connections = cut;
    report.shutdown_guards = draining.stopping.holders() as u64;
    report
}

impl<L: fmt::Debug, M, S, B, F> fmt::Debug for WithGracefulShutdown<L, M, S, B, F> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("WithGracefulShutdown")
            .field("listener", &self.accepting.listener)
            .field("drain_timeout", &self.timeouts.drain)
            .field("connection_timeout", &self.timeouts.connection)
            .finish_non_exhaustive()
    }
}

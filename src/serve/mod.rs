//! A server that knows when a response has left the process, and drains when it shuts down.

use std::{
    convert::Infallible,
    fmt,
    future::{Future, IntoFuture, poll_fn},
    io,
    marker::PhantomData,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::{extract::Request, serve::Listener};
use http::Response;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::{task::JoinSet, time::Instant};
use tower_layer::Layer;
use tower_service::Service;

pub use self::incoming_stream::IncomingStream;
use crate::{
    callback::output::BoxError,
    drain::{deadline::at_most_until, draining::Draining, report::DrainReport},
    sent::listener::SentListener,
};

mod connection;
mod incoming_stream;

const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);

/// Serves an app like [`axum::serve()`], so that callbacks wait until the response has left the
/// process.
///
/// Takes what `axum::serve` takes (any [`Listener`]; a `Router`, a `MethodRouter`, a handler, or
/// a make-service with connect info), serves HTTP/1.1 and HTTP/2, and adds two things:
///
/// - Callbacks of a [`DeferLayer`](crate::DeferLayer) in the app fire when the last byte of their
///   response was accepted by the transport and flushed, or when the connection was lost: at
///   [`Level::Sent`](crate::Level::Sent).
/// - A graceful shutdown waits for callbacks too, and reports what it could not wait for.
///
/// ```no_run
/// use std::time::Duration;
/// use axum::{Router, routing::get};
/// use axum_defer::{DeferLayer, defer};
///
/// # async fn shutdown_signal() {}
/// # async fn example() -> std::io::Result<()> {
/// async fn handler() -> &'static str {
///     defer(async { println!("the client has it, or the kernel does") });
///     "hello"
/// }
///
/// let app = Router::new().route("/", get(handler)).layer(DeferLayer::new());
/// let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
/// let report = axum_defer::serve(listener, app)
///     .with_graceful_shutdown(shutdown_signal())
///     .drain_timeout(Duration::from_secs(30))
///     .await?;
/// println!("{report}");
/// # Ok(()) }
/// ```
///
/// # Differences from `axum::serve`
///
/// - Connect info is extracted from this module's [`IncomingStream`]. The one for `SocketAddr` is
///   there; a [`Connected`] of your own is written for `axum_defer::serve::IncomingStream`.
/// - The response body may be any [`http_body::Body`].
/// - Without a shutdown signal it never returns, and nothing is drained.
/// - Its connections belong to the future: they are cut when it is dropped.
///
/// # TLS
///
/// Any listener will do whose IO is the plaintext side of the connection:
///
/// ```no_run
/// use std::{io, net::SocketAddr};
/// use axum::{Router, serve::Listener};
/// use axum_defer::DeferLayer;
/// use tokio::net::{TcpListener, TcpStream};
/// use tokio_rustls::{TlsAcceptor, server::TlsStream};
///
/// struct TlsListener {
///     tcp: TcpListener,
///     tls: TlsAcceptor,
/// }
///
/// impl Listener for TlsListener {
///     type Io = TlsStream<TcpStream>;
///     type Addr = SocketAddr;
///
///     async fn accept(&mut self) -> (Self::Io, Self::Addr) {
///         loop {
///             let (stream, address) = Listener::accept(&mut self.tcp).await;
///             // A server for the public shakes hands on a task per connection.
///             if let Ok(stream) = self.tls.accept(stream).await {
///                 return (stream, address);
///             }
///         }
///     }
///
///     fn local_addr(&self) -> io::Result<SocketAddr> {
///         self.tcp.local_addr()
///     }
/// }
///
/// # async fn example(tls: TlsAcceptor, app: Router) -> io::Result<()> {
/// let tcp = TcpListener::bind("127.0.0.1:443").await?;
/// axum_defer::serve(TlsListener { tcp, tls }, app.layer(DeferLayer::new())).await?;
/// # Ok(()) }
/// ```
///
/// # Unix sockets
///
/// ```no_run
/// # use axum::Router;
/// # use axum_defer::DeferLayer;
/// # async fn example(app: Router) -> std::io::Result<()> {
/// let listener = tokio::net::UnixListener::bind("/run/app.sock")?;
/// axum_defer::serve(listener, app.layer(DeferLayer::new())).await?;
/// # Ok(()) }
/// ```
pub fn serve<L, M, S, B>(listener: L, make_service: M) -> Serve<L, M, S, B>
where
    L: Listener,
    M: for<'a> Service<IncomingStream<'a, L>, Error = Infallible, Response = S>,
    S: Service<Request, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    B: http_body::Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    Serve {
        listener,
        make_service,
        signal: None,
        drain_timeout: DRAIN_TIMEOUT,
        connection_timeout: None,
        marker: PhantomData,
    }
}

/// A server that is ready to run: await it. Made by [`serve`].
#[must_use = "a server does nothing until it is awaited"]
pub struct Serve<L, M, S, B> {
    listener: L,
    make_service: M,
    signal: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    drain_timeout: Duration,
    connection_timeout: Option<Duration>,
    marker: PhantomData<fn() -> (S, B)>,
}

impl<L: Listener, M, S, B> Serve<L, M, S, B> {
    /// Shuts down when `signal` is ready: stops accepting, lets responses in flight finish,
    /// waits for their callbacks, and returns the [`DrainReport`].
    pub fn with_graceful_shutdown<F>(mut self, signal: F) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.signal = Some(Box::pin(signal));
        self
    }

    /// The time for all of the shutdown, from the signal to the return; 30 seconds by default.
    ///
    /// At the deadline, connections that are still open are cut, and callbacks that are not
    /// finished stand in the report. They go on for as long as the runtime does. With
    /// [`Duration::MAX`] there is no deadline.
    pub fn drain_timeout(mut self, timeout: Duration) -> Self {
        self.drain_timeout = timeout;
        self
    }

    /// The part of the shutdown's time that connections have to finish; nine tenths of the
    /// [`drain_timeout`](Self::drain_timeout) by default.
    ///
    /// A response that never ends (server-sent events, say) is cut then, and what it deferred
    /// has the rest of the time to run. So is a connection whose client has sent half of a
    /// request. A connection that is idle is closed at once.
    pub fn connection_timeout(mut self, timeout: Duration) -> Self {
        self.connection_timeout = Some(timeout);
        self
    }

    /// The address that the server listens on.
    ///
    /// # Errors
    ///
    /// Those of [`Listener::local_addr`].
    pub fn local_addr(&self) -> io::Result<L::Addr> {
        self.listener.local_addr()
    }
}

impl<L, M, S, B> Serve<L, M, S, B>
where
    L: Listener,
    M: for<'a> Service<IncomingStream<'a, L>, Error = Infallible, Response = S> + Send + 'static,
    for<'a> <M as Service<IncomingStream<'a, L>>>::Future: Send,
    S: Service<Request, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    B: http_body::Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    async fn run(self) -> DrainReport {
        let Self {
            listener,
            mut make_service,
            signal,
            ..
        } = self;
        let draining = Arc::new(Draining::default());
        let mut listener = SentListener::drained_by(listener, draining.clone());
        let mut signal = pin!(async {
            match signal {
                Some(signal) => signal.await,
                None => std::future::pending().await,
            }
        });
        let graceful = GracefulShutdown::new();
        let mut connections = JoinSet::new();
        loop {
            let accepted = {
                // One future per connection: a listener may shake hands in it, and would lose
                // what it has if it were dropped when another connection ends.
                let mut accepting = pin!(listener.accept());
                loop {
                    tokio::select! {
                        accepted = &mut accepting => break Some(accepted),
                        () = &mut signal => break None,
                        Some(_) = connections.join_next() => {}
                    }
                }
            };
            let Some((io, remote_addr)) = accepted else {
                break;
            };
            let Ok(()) = poll_fn(|cx| make_service.poll_ready(cx)).await;
            let layer = io.layer();
            let connected = make_service.call(IncomingStream {
                io: io.get_ref(),
                remote_addr,
            });
            let Ok(service) = connected.await;
            let service = layer.layer(service);
            connections.spawn(connection::serve(io, service, graceful.watcher()));
        }
        drop(listener);

        draining.start();
        let start = Instant::now();
        let after = |timeout: Duration| start.checked_add(timeout);
        let deadline = after(self.drain_timeout);
        let connection_timeout = self
            .connection_timeout
            .unwrap_or(self.drain_timeout / 10 * 9)
            .min(self.drain_timeout);
        let connection_deadline = after(connection_timeout);
        let all_closed = async {
            graceful.shutdown().await;
            while connections.join_next().await.is_some() {}
        };
        if !at_most_until(connection_deadline, all_closed).await {
            connections.abort_all();
            at_most_until(deadline, async {
                while connections.join_next().await.is_some() {}
            })
            .await;
        }
        at_most_until(deadline, draining.wait_idle()).await;
        draining.report()
    }
}

impl<L, M, S, B> IntoFuture for Serve<L, M, S, B>
where
    L: Listener,
    M: for<'a> Service<IncomingStream<'a, L>, Error = Infallible, Response = S> + Send + 'static,
    for<'a> <M as Service<IncomingStream<'a, L>>>::Future: Send,
    S: Service<Request, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    B: http_body::Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    type Output = io::Result<DrainReport>;
    type IntoFuture = ServeFuture;

    fn into_future(self) -> ServeFuture {
        ServeFuture(Box::pin(self.run()))
    }
}

/// The future of [`Serve`]. It never fails; the `Result` leaves room for what may.
#[must_use = "a server does nothing until it is awaited"]
pub struct ServeFuture(Pin<Box<dyn Future<Output = DrainReport> + Send>>);

impl Future for ServeFuture {
    type Output = io::Result<DrainReport>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx).map(Ok)
    }
}

impl fmt::Debug for ServeFuture {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("ServeFuture")
            .finish_non_exhaustive()
    }
}

impl<L: fmt::Debug, M, S, B> fmt::Debug for Serve<L, M, S, B> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Serve")
            .field("listener", &self.listener)
            .field("drain_timeout", &self.drain_timeout)
            .field("connection_timeout", &self.connection_timeout)
            .finish_non_exhaustive()
    }
}

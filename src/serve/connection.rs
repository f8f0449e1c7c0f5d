//! One connection, from its first byte to its last.

use std::{
    convert::Infallible,
    future::{Future, ready},
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{
            AtomicBool,
            Ordering::{Acquire, Release},
        },
    },
    task::{Context, Poll, Wake, Waker},
};

use axum::extract::Request;
use http::Response;
use hyper::{
    body::Incoming,
    rt::{Read, Write},
    server::conn::http1,
    service::HttpService,
};
#[cfg(feature = "http2")]
use hyper::{rt::bounds::Http2ServerConnExec, server::conn::http2};
#[cfg(feature = "http2")]
use hyper_util::rt::TokioExecutor;
use hyper_util::rt::{TokioIo, TokioTimer};
use pin_project_lite::pin_project;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;
use tower_service::Service;

use super::{
    service::ConnectionService,
    timeouts::{ConnectionTimer, Expired, Timeouts},
};
use crate::{
    callback::output::BoxError,
    sent::{connection::Expecting, io::SentIo},
};

/// The settings of connections: those of hyper, and the timeouts.
pub(super) struct Settings {
    pub(super) timeouts: Timeouts,
    pub(super) http1: http1::Builder,
    #[cfg(feature = "http2")]
    pub(super) http2: http2::Builder<TokioExecutor>,
}

impl Default for Settings {
    fn default() -> Self {
        // Without a timer, hyper panics if a timeout is set. `ConnectionTimer` replaces its timeout for
        // heads.
        let mut http1 = http1::Builder::new();
        http1.timer(TokioTimer::new()).header_read_timeout(None);
        #[cfg(feature = "http2")]
        let mut http2 = http2::Builder::new(TokioExecutor::new());
        #[cfg(feature = "http2")]
        http2
            .timer(TokioTimer::new())
            // WebSockets over HTTP/2 (RFC 8441), which `axum::serve` accepts too.
            .enable_connect_protocol();
        Self {
            timeouts: Timeouts::default(),
            http1,
            #[cfg(feature = "http2")]
            http2,
        }
    }
}

/// Serves a connection until it is closed, has timed out, or the server shuts down.
pub(super) fn serve<I, S, B>(
    settings: Arc<Settings>,
    io: SentIo<I>,
    service: ConnectionService<S>,
    shutdown: CancellationToken,
) -> impl Future<Output = ()> + Send
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Service<Request, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    B: http_body::Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    #[cfg_attr(not(feature = "http2"), allow(unused_mut))]
    let mut serving = Serving {
        timer: ConnectionTimer::new(settings.timeouts, io.connection().clone()),
        shutdown,
    };
    #[cfg_attr(not(feature = "http2"), allow(unused_mut))]
    let mut io = io;
    async move {
        // Boxed, so that a connection needs the space for its own protocol only.
        #[cfg(feature = "http2")]
        match serving.detect_http2(&mut io).await {
            None => return,
            Some(false) => {}
            Some(true) => {
                let connection = settings.http2.serve_connection(TokioIo::new(io), service);
                return serving.run(Box::pin(connection)).await;
            }
        }
        let connection = settings.http1.serve_connection(TokioIo::new(io), service);
        serving.run(Box::pin(connection.with_upgrades())).await;
    }
}

/// The events that end a connection, apart from the client.
struct Serving {
    timer: ConnectionTimer,
    shutdown: CancellationToken,
}

impl Serving {
    /// Returns `true` if the protocol is HTTP/2, and `None` if the connection ends before it is known.
    #[cfg(feature = "http2")]
    async fn detect_http2<I>(&mut self, io: &mut SentIo<I>) -> Option<bool>
    where
        I: AsyncRead + Unpin,
    {
        let mut is_http2 = pin!(io.is_http2());
        tokio::select! {
            biased;
            is_http2 = is_http2.as_mut() => return is_http2.ok(),
            () = self.shutdown.cancelled() => {}
            _ = &mut self.timer => return None,
        }
        poll_after_yield(is_http2).await?.ok()
    }

    async fn run(&mut self, mut connection: Pin<Box<impl GracefulConnection>>) {
        let mut shutdown = pin!(PollOnWake::new(self.shutdown.cancelled()));
        // The connection is polled first, so that the timer sees its latest state. An error is the
        // client's; callbacks see it as an aborted response.
        tokio::select! {
            biased;
            _ = connection.as_mut() => return,
            () = shutdown.as_mut() => {
                // Serves a request that has already arrived.
                if poll_after_yield(connection.as_mut()).await.is_some() {
                    return;
                }
            }
            expired = &mut self.timer => match expired {
                Expired::Idle => {}
                // HTTP/2 cannot end a connection gracefully in the middle of a header block.
                Expired::HeaderRead if !self.timer.connection().is_http2() => {}
                Expired::HeaderRead | Expired::RequestBody | Expired::Stall => return,
            }
        }
        connection.as_mut().graceful_shutdown();
        self.timer.begin_closing();
        // hyper closes an idle connection in this poll, or takes a request that has just arrived.
        tokio::select! {
            biased;
            _ = connection.as_mut() => return,
            () = ready(()) => {}
        }
        if !self.timer.connection().is_http2() {
            // hyper would wait for the rest of a first head.
            if let Some(Expecting::Head(_) | Expecting::NextHttp1 { .. }) =
                self.timer.connection().expecting()
            {
                return;
            }
        }
        tokio::select! {
            biased;
            _ = connection.as_mut() => {}
            _ = &mut self.timer => {}
        }
    }
}

/// Polls the future once, after the IO driver had the opportunity to report what has arrived.
async fn poll_after_yield<F: Future>(future: Pin<&mut F>) -> Option<F::Output> {
    tokio::task::yield_now().await;
    tokio::select! {
        biased;
        output = future => Some(output),
        () = ready(()) => None,
    }
}

/// A connection of hyper.
trait GracefulConnection: Future {
    fn graceful_shutdown(self: Pin<&mut Self>);
}

impl<I, S, B> GracefulConnection for http1::UpgradeableConnection<I, S>
where
    I: Read + Write + Unpin + Send + 'static,
    S: HttpService<Incoming, ResBody = B, Error: Into<BoxError>>,
    B: http_body::Body<Error: Into<BoxError>> + 'static,
{
    fn graceful_shutdown(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

#[cfg(feature = "http2")]
impl<I, S, B> GracefulConnection for http2::Connection<I, S, TokioExecutor>
where
    I: Read + Write + Unpin + 'static,
    S: HttpService<Incoming, ResBody = B, Error: Into<BoxError>>,
    B: http_body::Body<Error: Into<BoxError>> + 'static,
    TokioExecutor: Http2ServerConnExec<S::Future, B>,
{
    fn graceful_shutdown(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

pin_project! {
    /// A future that is polled once, and then only after it was woken, because a poll costs more than
    /// a check of a flag.
    struct PollOnWake<F> {
        #[pin]
        future: F,
        registered: Option<Arc<WakeFlag>>,
    }
}

/// Wakes a task, and notes that it did.
struct WakeFlag {
    is_woken: AtomicBool,
    task: Waker,
}

impl<F> PollOnWake<F> {
    fn new(future: F) -> Self {
        Self {
            future,
            registered: None,
        }
    }
}

impl<F: Future> Future for PollOnWake<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let flag = match this.registered {
            Some(flag) if flag.task.will_wake(cx.waker()) && !flag.is_woken() => {
                return Poll::Pending;
            }
            registered => registered.insert(Arc::new(WakeFlag {
                is_woken: AtomicBool::new(false),
                task: cx.waker().clone(),
            })),
        };
        let waker = Waker::from(flag.clone());
        this.future.poll(&mut Context::from_waker(&waker))
    }
}

impl WakeFlag {
    fn is_woken(&self) -> bool {
        self.is_woken.load(Acquire)
    }
}

impl Wake for WakeFlag {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.is_woken.store(true, Release);
        self.task.wake_by_ref();
    }
}

//! Accepts connections, and starts a task for each.

use std::{
    convert::Infallible, fmt, future::poll_fn, marker::PhantomData, pin::pin, sync::Arc,
    time::Duration,
};

use axum::{extract::Request, serve::Listener};
use http::Response;
use hyper_util::{
    rt::{TokioExecutor, TokioTimer},
    server::conn::auto::Builder,
};
use tokio::{sync::Semaphore, task::JoinSet};
use tower_service::Service;

use super::{
    app::App, connection, head_timeout::HeadTimeout, in_span::ConnectionSpan,
    incoming_stream::IncomingStream, stop::Stop,
};
use crate::{
    callback::output::BoxError,
    drain::{drain::Drain, stopping::StopsAtTheLatest},
    sent::io::SentIo,
};

/// hyper's default.
const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(30);

/// Whom a server serves, what with, and how.
pub(super) struct Accepting<L, M, S, B> {
    pub(super) listener: L,
    make_service: M,
    pub(super) builder: Builder<TokioExecutor>,
    pub(super) places: Option<Arc<Semaphore>>,
    pub(super) header_read_timeout: Option<Duration>,
    marker: PhantomData<fn() -> (S, B)>,
}

/// The connections of a server that are open. They are cut when this is dropped.
pub(super) struct Connections {
    pub(super) tasks: JoinSet<()>,
    pub(super) draining: Arc<Drain>,
    _told_at_the_latest: StopsAtTheLatest,
}

impl Connections {
    pub(super) fn new(draining: Drain) -> Self {
        let draining = Arc::new(draining);
        Self {
            tasks: JoinSet::new(),
            _told_at_the_latest: draining.stopping.at_the_latest_here(),
            draining,
        }
    }
}

impl<L, M, S, B> Accepting<L, M, S, B> {
    pub(super) fn new(listener: L, make_service: M) -> Self {
        let mut builder = Builder::new(TokioExecutor::new());
        // Without a timer hyper panics over time-outs that are set. What it has for the head of a
        // request it enters anew for each one, and reads and flushes once more to begin with it.
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(None);
        builder
            .http2()
            .timer(TokioTimer::new())
            // WebSockets over HTTP/2 (RFC 8441), which `axum::serve` accepts too.
            .enable_connect_protocol();
        Self {
            listener,
            make_service,
            builder,
            places: None,
            header_read_timeout: Some(HEADER_READ_TIMEOUT),
            marker: PhantomData,
        }
    }
}

impl<L, M, S, B> Accepting<L, M, S, B>
where
    L: Listener<Addr: fmt::Debug>,
    M: for<'a> Service<IncomingStream<'a, L>, Error = Infallible, Response = S> + Send + 'static,
    for<'a> <M as Service<IncomingStream<'a, L>>>::Future: Send,
    S: Service<Request, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    B: http_body::Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    /// Accepts for ever. What is dropped with the future was not a connection yet.
    pub(super) async fn accept_into(self, connections: &mut Connections) -> ! {
        let Self {
            mut listener,
            mut make_service,
            builder,
            places,
            header_read_timeout,
            ..
        } = self;
        let Connections {
            tasks, draining, ..
        } = connections;
        loop {
            let (place, (io, remote_addr)) = {
                // One future per connection: a listener may shake hands in it, and would lose
                // what it has if it were dropped when another connection ends.
                let mut accepting = pin!(async {
                    let place = match &places {
                        Some(places) => places.clone().acquire_owned().await.ok(),
                        None => None,
                    };
                    (place, listener.accept().await)
                });
                loop {
                    tokio::select! {
                        accepted = &mut accepting => break accepted,
                        Some(_) = tasks.join_next() => {}
                    }
                }
            };
            let span = ConnectionSpan::of(&remote_addr);
            let Ok(()) = poll_fn(|cx| make_service.poll_ready(cx)).await;
            let Ok(service) = make_service
                .call(IncomingStream {
                    io: &io,
                    remote_addr,
                })
                .await;
            let io = SentIo::served(io, draining.clone(), place);
            let stop = Stop::of(&draining.stopping);
            let app = App::new(service, &io, span.clone());
            let head = HeadTimeout::new(header_read_timeout, app.connection());
            let connection = connection::serve(builder.clone(), io, app, head, stop);
            tasks.spawn(span.around(connection));
        }
    }
}

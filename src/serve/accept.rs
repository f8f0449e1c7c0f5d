//! Accepts connections, and starts a task for each.

use std::{convert::Infallible, fmt, future::poll_fn, marker::PhantomData, pin::pin, sync::Arc};

use axum::{extract::Request, serve::Listener};
use http::Response;
use tokio::{sync::Semaphore, task::JoinSet};
use tokio_util::sync::DropGuard;
use tower_service::Service;

use super::{
    connection::{self, Settings},
    make_service::IncomingStream,
    service::{ConnectionService, InSpan, connection_span},
};
use crate::{
    callback::output::BoxError,
    drain::{Drain, Server, ShutdownSignal},
    layer::defer_handle::DeferHandle,
    sent::io::SentIo,
};

/// A listener, its app, and its settings.
pub(super) struct Acceptor<L, M, S, B> {
    pub(super) listener: L,
    make_service: M,
    pub(super) settings: Settings,
    pub(super) max_connections: Option<Arc<Semaphore>>,
    pub(super) shutdown: ShutdownSignal,
    /// Begins the shutdown if the server is dropped.
    begin_shutdown: DropGuard,
    /// Layers to drain, in addition to those that requests pass through.
    pub(super) handles: Vec<DeferHandle>,
    marker: PhantomData<fn() -> (S, B)>,
}

impl<L, M, S, B> Acceptor<L, M, S, B> {
    pub(super) fn new(listener: L, make_service: M) -> Self {
        let shutdown = ShutdownSignal::default();
        Self {
            listener,
            make_service,
            settings: Settings::default(),
            max_connections: None,
            begin_shutdown: shutdown.drop_guard(),
            shutdown,
            handles: Vec::new(),
            marker: PhantomData,
        }
    }

    /// Returns the state that the connections will share.
    pub(super) fn server(&self, drain: Option<Drain>) -> Arc<Server> {
        let server = Server {
            shutdown: self.shutdown.clone(),
            drain,
        };
        for handle in &self.handles {
            server.drain_with(handle.store());
        }
        Arc::new(server)
    }
}

impl<L, M, S, B> Acceptor<L, M, S, B>
where
    L: Listener<Addr: fmt::Debug>,
    M: for<'a> Service<IncomingStream<'a, L>, Error = Infallible, Response = S> + Send + 'static,
    for<'a> <M as Service<IncomingStream<'a, L>>>::Future: Send,
    S: Service<Request, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    B: http_body::Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    /// Accepts connections until the future is dropped.
    pub(super) async fn run(self, server: Arc<Server>, tasks: &mut JoinSet<()>) -> ! {
        let Self {
            mut listener,
            mut make_service,
            settings,
            max_connections,
            shutdown,
            begin_shutdown: _begin_shutdown,
            ..
        } = self;
        let settings = Arc::new(settings);
        loop {
            let (permit, (io, remote_addr)) = {
                // One future per connection, because a listener may perform a handshake in it, which
                // must not be dropped when another connection ends.
                let mut accept = pin!(async {
                    let permit = match &max_connections {
                        Some(semaphore) => semaphore.clone().acquire_owned().await.ok(),
                        None => None,
                    };
                    (permit, listener.accept().await)
                });
                loop {
                    tokio::select! {
                        biased;
                        Some(_) = tasks.join_next() => {}
                        accepted = &mut accept => break accepted,
                    }
                }
            };
            let span = connection_span(&remote_addr);
            let Ok(()) = poll_fn(|cx| make_service.poll_ready(cx)).await;
            let Ok(service) = make_service
                .call(IncomingStream {
                    io: &io,
                    remote_addr,
                })
                .await;
            let io = SentIo::served(io, server.clone(), permit);
            let service = ConnectionService::new(service, &io, span.clone());
            let token = shutdown.token().clone();
            let connection = connection::serve(settings.clone(), io, service, token);
            tasks.spawn(InSpan::new(connection, Some(span)));
        }
    }
}

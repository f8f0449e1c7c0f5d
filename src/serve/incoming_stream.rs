//! A connection as make-services see it, and the apps that serve every connection alike.

use std::{
    convert::Infallible,
    future::ready,
    net::SocketAddr,
    task::{Context, Poll},
};

use axum::{
    Router, extract::connect_info::Connected, handler::HandlerService, routing::MethodRouter,
    serve::Listener,
};
use tower_service::Service;

use crate::service::Defer;

/// A connection that was just accepted, for make-services and [`Connected`].
#[derive(Debug)]
pub struct IncomingStream<'a, L: Listener> {
    pub(super) io: &'a L::Io,
    pub(super) remote_addr: L::Addr,
}

impl<L: Listener> IncomingStream<'_, L> {
    /// The IO of the connection.
    pub fn io(&self) -> &L::Io {
        self.io
    }

    /// The address of the peer.
    pub fn remote_addr(&self) -> &L::Addr {
        &self.remote_addr
    }
}

impl<L: Listener<Addr = SocketAddr>> Connected<IncomingStream<'_, L>> for SocketAddr {
    fn connect_info(stream: IncomingStream<'_, L>) -> Self {
        stream.remote_addr
    }
}

/// An app that serves every connection alike, as `axum::serve` takes it.
macro_rules! serves_every_connection {
    ($([$($generics:tt)*] $app:ty, $ready:expr;)*) => {$(
        impl<$($generics)* L: Listener> Service<IncomingStream<'_, L>> for $app {
            type Response = Self;
            type Error = Infallible;
            type Future = std::future::Ready<Result<Self, Infallible>>;

            fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
                Poll::Ready(Ok(()))
            }

            fn call(&mut self, _: IncomingStream<'_, L>) -> Self::Future {
                let app = self.clone();
                ready(Ok($ready(app)))
            }
        }
    )*};
}

serves_every_connection! {
    // With its state, a router makes services of its handlers now, and not for each request.
    [] Router<()>, |app: Router<()>| app.with_state(());
    [] MethodRouter<()>, |app: MethodRouter<()>| app.with_state(());
    [H: Clone, T, S: Clone,] HandlerService<H, T, S>, std::convert::identity;
    // A layer around the whole router.
    [] Defer<Router<()>>, |app: Defer<Router<()>>| app.map(|router| router.with_state(()));
}

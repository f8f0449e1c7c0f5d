//! The connection that a make-service receives, and the apps that serve every connection alike.

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

/// An accepted connection, for make-services and [`Connected`].
///
/// ```no_run
/// use std::net::SocketAddr;
/// use axum::{Router, extract::{ConnectInfo, connect_info::Connected}, routing::get};
/// use axum_defer::serve::IncomingStream;
/// use tokio::net::TcpListener;
///
/// #[derive(Clone)]
/// struct Connection {
///     client: SocketAddr,
///     time_to_live: Option<u32>,
/// }
///
/// impl Connected<IncomingStream<'_, TcpListener>> for Connection {
///     fn connect_info(stream: IncomingStream<'_, TcpListener>) -> Self {
///         Self {
///             client: *stream.remote_addr(),
///             time_to_live: stream.io().ttl().ok(),
///         }
///     }
/// }
///
/// async fn hello(ConnectInfo(connection): ConnectInfo<Connection>) -> String {
///     format!("hello {}, {:?}", connection.client, connection.time_to_live)
/// }
///
/// # async fn example(listener: TcpListener) -> std::io::Result<()> {
/// let app = Router::new().route("/", get(hello));
/// axum_defer::serve(listener, app.into_make_service_with_connect_info::<Connection>()).await?;
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct IncomingStream<'a, L: Listener> {
    pub(super) io: &'a L::Io,
    pub(super) remote_addr: L::Addr,
}

impl<L: Listener> IncomingStream<'_, L> {
    /// Returns the IO of the connection.
    pub fn io(&self) -> &L::Io {
        self.io
    }

    /// Returns the address of the peer.
    pub fn remote_addr(&self) -> &L::Addr {
        &self.remote_addr
    }
}

impl<L: Listener<Addr = SocketAddr>> Connected<IncomingStream<'_, L>> for SocketAddr {
    fn connect_info(stream: IncomingStream<'_, L>) -> Self {
        stream.remote_addr
    }
}

/// Implements `Service<IncomingStream>` for the apps that `axum::serve` accepts.
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
    // With its state, a router creates the services of its handlers once, not for each request.
    [] Router<()>, |app: Router<()>| app.with_state(());
    [] MethodRouter<()>, |app: MethodRouter<()>| app.with_state(());
    [H: Clone, T, S: Clone,] HandlerService<H, T, S>, std::convert::identity;
}

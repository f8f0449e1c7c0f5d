//! The connection that a make-service receives, the apps that serve every connection alike, and
//! make-services that wrap the service of each connection in a [`Defer`].

use std::{
    convert::Infallible,
    future::Future,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll, ready},
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::connect_info::Connected,
    handler::HandlerService,
    routing::MethodRouter,
    serve::Listener,
};
use http::Response;
use pin_project_lite::pin_project;
use tower_service::Service;

use crate::{callback::output::BoxError, service::Defer};

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
                std::future::ready(Ok($ready(app)))
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

/// For [`serve`](crate::serve()): accepts a [`DeferLayer`](crate::DeferLayer) around a router or a
/// make-service.
impl<'a, L, M> Service<IncomingStream<'a, L>> for Defer<M>
where
    L: Listener,
    M: Service<IncomingStream<'a, L>>,
{
    type Response = Defer<M::Response>;
    type Error = M::Error;
    type Future = MakeDefer<M::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), M::Error>> {
        self.get_mut().poll_ready(cx)
    }

    fn call(&mut self, stream: IncomingStream<'a, L>) -> Self::Future {
        MakeDefer {
            layer: self.around(()),
            make: self.get_mut().call(stream),
        }
    }
}

/// For [`axum::serve()`]: accepts a [`DeferLayer`](crate::DeferLayer) around a router or a
/// make-service.
impl<'a, L, M> Service<axum::serve::IncomingStream<'a, L>> for Defer<M>
where
    L: Listener,
    M: Service<axum::serve::IncomingStream<'a, L>>,
{
    type Response = BoxBody<Defer<M::Response>>;
    type Error = M::Error;
    type Future = MakeBoxBody<M::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), M::Error>> {
        self.get_mut().poll_ready(cx)
    }

    fn call(&mut self, stream: axum::serve::IncomingStream<'a, L>) -> Self::Future {
        MakeBoxBody {
            make: MakeDefer {
                layer: self.around(()),
                make: self.get_mut().call(stream),
            },
        }
    }
}

pin_project! {
    /// A future that wraps the service of a connection in a [`Defer`].
    #[allow(missing_debug_implementations, reason = "it cannot be named")]
    pub struct MakeDefer<F> {
        #[pin]
        make: F,
        layer: Defer<()>,
    }
}

impl<S, E, F: Future<Output = Result<S, E>>> Future for MakeDefer<F> {
    type Output = Result<Defer<S>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let service = ready!(this.make.poll(cx))?;
        Poll::Ready(Ok(this.layer.around(service)))
    }
}

pin_project! {
    /// A future that wraps the service of a connection in a [`BoxBody`].
    #[allow(missing_debug_implementations, reason = "it cannot be named")]
    pub struct MakeBoxBody<F> {
        #[pin]
        make: MakeDefer<F>,
    }
}

impl<S, E, F: Future<Output = Result<S, E>>> Future for MakeBoxBody<F> {
    type Output = Result<BoxBody<Defer<S>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let service = ready!(self.project().make.poll(cx))?;
        Poll::Ready(Ok(BoxBody { service }))
    }
}

/// A service that boxes the response bodies, because [`axum::serve()`] accepts only axum's body.
#[derive(Clone)]
#[allow(missing_debug_implementations, reason = "it cannot be named")]
pub struct BoxBody<S> {
    service: S,
}

impl<S, R, B> Service<R> for BoxBody<S>
where
    S: Service<R, Response = Response<B>>,
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = BoxBodyFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.service.poll_ready(cx)
    }

    fn call(&mut self, request: R) -> Self::Future {
        BoxBodyFuture {
            future: self.service.call(request),
        }
    }
}

pin_project! {
    #[allow(missing_debug_implementations, reason = "it cannot be named")]
    pub struct BoxBodyFuture<F> {
        #[pin]
        future: F,
    }
}

impl<B, E, F> Future for BoxBodyFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    type Output = Result<Response<Body>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let response = ready!(self.project().future.poll(cx))?;
        Poll::Ready(Ok(response.map(Body::new)))
    }
}

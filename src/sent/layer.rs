//! The outermost layer of a connection's service.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http::{Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use super::{body::SentBody, connection::Connection, response::ResponseHandle};
use crate::{
    extensions::reserve,
    response::end_of_body::{EndOfBody, Exchange},
};

/// A layer that connects the responses of one connection to its [`SentIo`](super::SentIo).
///
/// It must be the outermost layer, because it does not see what outer layers do. Created by
/// [`SentIo::layer`](super::SentIo::layer), one per connection.
///
/// ```
/// use axum::Router;
/// use axum_defer::sent::{Sent, SentIo, SentLayer};
/// use tower::Layer;
///
/// let io = SentIo::new(tokio::io::empty());
/// let layer: SentLayer = io.layer();
/// let service: Sent<Router> = layer.layer(Router::new());
/// # let _ = service;
/// ```
#[derive(Clone)]
pub struct SentLayer {
    connection: Arc<Connection>,
}

impl SentLayer {
    pub(super) fn new(connection: Arc<Connection>) -> Self {
        Self { connection }
    }
}

impl<S> Layer<S> for SentLayer {
    type Service = Sent<S>;

    fn layer(&self, inner: S) -> Sent<S> {
        Sent {
            inner,
            connection: self.connection.clone(),
        }
    }
}

impl fmt::Debug for SentLayer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("SentLayer").finish_non_exhaustive()
    }
}

/// The service of [`SentLayer`].
///
/// ```
/// use axum::Router;
/// use axum_defer::sent::{Sent, SentIo};
/// use tower::Layer;
///
/// fn around(io: &SentIo<tokio::net::TcpStream>, app: Router) -> Sent<Router> {
///     io.layer().layer(app)
/// }
/// ```
#[derive(Clone)]
pub struct Sent<S> {
    inner: S,
    connection: Arc<Connection>,
}

impl<S: fmt::Debug> fmt::Debug for Sent<S> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Sent")
            .field("inner", &self.inner)
            .finish_non_exhaustive()
    }
}

impl<S, ReqB, ResB> Service<Request<ReqB>> for Sent<S>
where
    S: Service<Request<ReqB>, Response = Response<ResB>>,
    ResB: Body,
{
    type Response = Response<SentBody<ResB>>;
    type Error = S::Error;
    type Future = SentFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<ReqB>) -> Self::Future {
        let Self { inner, connection } = self;
        SentFuture::new(connection, request, |request| inner.call(request))
    }
}

pin_project! {
    /// The response future of [`Sent`].
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// use axum::{Router, body::Body, extract::Request, response::Response};
    /// use axum_defer::sent::{SentBody, SentIo};
    /// use tower::{Layer, Service};
    ///
    /// let io = SentIo::new(tokio::io::empty());
    /// let mut service = io.layer().layer(Router::new());
    /// // `SentFuture` is what `call` returns.
    /// let response: Response<SentBody<Body>> = service.call(Request::new(Body::empty())).await.unwrap();
    /// assert_eq!(response.status(), 404);
    /// # }
    /// ```
    pub struct SentFuture<F> {
        // Dropped before the inner future, like `SentBody::outgoing`.
        unanswered: Unanswered,
        #[pin]
        inner: F,
        exchange: Exchange,
    }
}

impl<F> SentFuture<F> {
    pub(crate) fn new<B>(
        connection: &Arc<Connection>,
        mut request: Request<B>,
        call: impl FnOnce(Request<B>) -> F,
    ) -> Self {
        let exchange = Exchange::of(&request);
        // The request is in progress from now on, even while the app is not ready for it.
        let handle = ResponseHandle::new(connection.clone(), exchange);
        let extensions = request.extensions_mut();
        reserve(extensions);
        extensions.insert(handle.clone());
        Self {
            unanswered: Unanswered(Some(handle)),
            inner: call(request),
            exchange,
        }
    }
}

/// A request without a response; its handle is aborted if it stays so.
struct Unanswered(Option<ResponseHandle>);

impl Drop for Unanswered {
    fn drop(&mut self) {
        if let Some(handle) = self.0.take() {
            handle.abort(0);
            handle.taken();
        }
    }
}

impl<F, B, E> Future for SentFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: Body,
{
    type Output = Result<Response<SentBody<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let response = ready!(this.inner.poll(cx))?;
        let handle = this
            .unanswered
            .0
            .take()
            .expect("futures are not polled after they are ready");
        let end = EndOfBody::of(*this.exchange, &response);
        let multiplexed = this.exchange.is_multiplexed;
        Poll::Ready(Ok(
            response.map(|body| SentBody::new(body, end, multiplexed, handle))
        ))
    }
}

impl<F> fmt::Debug for SentFuture<F> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("SentFuture").finish_non_exhaustive()
    }
}

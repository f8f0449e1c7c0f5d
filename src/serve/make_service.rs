//! Make-services that wrap the service of each connection in a [`Defer`].

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use axum::{
    body::{Body, Bytes},
    serve::Listener,
};
use http::Response;
use pin_project_lite::pin_project;
use tower_service::Service;

use super::incoming_stream::IncomingStream;
use crate::{callback::output::BoxError, service::Defer};

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

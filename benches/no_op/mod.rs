//! A layer that does nothing: what any layer costs.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::{Arc, atomic::AtomicU64},
    task::{Context, Poll, ready},
};

use axum::{body::Body, extract::Request, response::Response};
use http_body::{Frame, SizeHint};
use pin_project_lite::pin_project;
use tower::{Layer, Service};

/// Does nothing, in the shape in which all layers do that look at the response body: axum boxes
/// what they make of it. With an extension, it adds one small shared value to each request, and
/// does nothing with it either.
#[derive(Clone)]
pub(crate) struct NoOpLayer<const EXTENSION: bool>;

impl<const EXTENSION: bool, S> Layer<S> for NoOpLayer<EXTENSION> {
    type Service = NoOp<EXTENSION, S>;

    fn layer(&self, inner: S) -> NoOp<EXTENSION, S> {
        NoOp { inner }
    }
}

#[derive(Clone)]
pub(crate) struct NoOp<const EXTENSION: bool, S> {
    inner: S,
}

impl<const EXTENSION: bool, S> Service<Request> for NoOp<EXTENSION, S>
where
    S: Service<Request, Response = Response, Error = Infallible>,
{
    type Response = Response<NoOpBody>;
    type Error = Infallible;
    type Future = NoOpFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        if EXTENSION {
            request.extensions_mut().insert(Arc::new(AtomicU64::new(0)));
        }
        NoOpFuture {
            inner: self.inner.call(request),
        }
    }
}

pin_project! {
    pub(crate) struct NoOpFuture<F> {
        #[pin]
        inner: F,
    }
}

impl<F> Future for NoOpFuture<F>
where
    F: Future<Output = Result<Response, Infallible>>,
{
    type Output = Result<Response<NoOpBody>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Ok(response) = ready!(self.project().inner.poll(cx));
        Poll::Ready(Ok(response.map(|inner| NoOpBody { inner })))
    }
}

pin_project! {
    pub(crate) struct NoOpBody {
        #[pin]
        inner: Body,
    }
}

impl http_body::Body for NoOpBody {
    type Data = bytes::Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<bytes::Bytes>, axum::Error>>> {
        self.project().inner.poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

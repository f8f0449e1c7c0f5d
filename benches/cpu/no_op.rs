//! A layer that does nothing, to measure the cost of any layer.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use axum::{body::Body, extract::Request, response::Response};
use http_body::{Frame, SizeHint};
use pin_project_lite::pin_project;
use tower::{Layer, Service};

/// A layer with a future and a body of its own, like all layers that observe the response body:
/// axum boxes both.
#[derive(Clone)]
pub(crate) struct NoOpLayer;

impl<S> Layer<S> for NoOpLayer {
    type Service = NoOp<S>;

    fn layer(&self, inner: S) -> NoOp<S> {
        NoOp { inner }
    }
}

#[derive(Clone)]
pub(crate) struct NoOp<S> {
    inner: S,
}

impl<S> Service<Request> for NoOp<S>
where
    S: Service<Request, Response = Response, Error = Infallible>,
{
    type Response = Response<NoOpBody>;
    type Error = Infallible;
    type Future = NoOpFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
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

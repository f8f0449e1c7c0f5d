//! A service as [`axum::serve()`] takes it: with axum's own response body.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use axum::body::{Body, Bytes};
use http::Response;
use pin_project_lite::pin_project;
use tower_service::Service;

use crate::callback::output::BoxError;

/// Boxes the response body of a service.
#[derive(Clone)]
#[allow(missing_debug_implementations, reason = "nobody gets to see it")]
pub struct UnderAxum<S> {
    service: S,
}

impl<S> UnderAxum<S> {
    pub(super) fn new(service: S) -> Self {
        Self { service }
    }
}

impl<S, R, B> Service<R> for UnderAxum<S>
where
    S: Service<R, Response = Response<B>>,
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = AnsweringUnderAxum<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.service.poll_ready(cx)
    }

    fn call(&mut self, request: R) -> Self::Future {
        AnsweringUnderAxum {
            answering: self.service.call(request),
        }
    }
}

pin_project! {
    #[allow(missing_debug_implementations, reason = "nobody gets to see it")]
    pub struct AnsweringUnderAxum<F> {
        #[pin]
        answering: F,
    }
}

impl<B, E, F> Future for AnsweringUnderAxum<F>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    type Output = Result<Response<Body>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let response = ready!(self.project().answering.poll(cx))?;
        Poll::Ready(Ok(response.map(Body::new)))
    }
}

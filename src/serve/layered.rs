//! A layer around all that is served: what is made for a connection, [`Defer`] is put around it.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use axum::serve::Listener;
use pin_project_lite::pin_project;
use tower_service::Service;

use super::{incoming_stream::IncomingStream, under_axum::UnderAxum};
use crate::service::Defer;

/// For [`serve`](crate::serve()): whatever it takes, with a [`DeferLayer`](crate::DeferLayer) around
/// it.
impl<'a, L, M> Service<IncomingStream<'a, L>> for Defer<M>
where
    L: Listener,
    M: Service<IncomingStream<'a, L>>,
{
    type Response = Defer<M::Response>;
    type Error = M::Error;
    type Future = Layered<M::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), M::Error>> {
        self.get_mut().poll_ready(cx)
    }

    fn call(&mut self, stream: IncomingStream<'a, L>) -> Self::Future {
        Layered {
            layer: self.around(()),
            making: self.get_mut().call(stream),
        }
    }
}

/// For [`axum::serve()`]: whatever it takes, with a [`DeferLayer`](crate::DeferLayer) around it.
impl<'a, L, M> Service<axum::serve::IncomingStream<'a, L>> for Defer<M>
where
    L: Listener,
    M: Service<axum::serve::IncomingStream<'a, L>>,
{
    type Response = UnderAxum<Defer<M::Response>>;
    type Error = M::Error;
    type Future = LayeredUnderAxum<M::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), M::Error>> {
        self.get_mut().poll_ready(cx)
    }

    fn call(&mut self, stream: axum::serve::IncomingStream<'a, L>) -> Self::Future {
        LayeredUnderAxum {
            layered: Layered {
                layer: self.around(()),
                making: self.get_mut().call(stream),
            },
        }
    }
}

pin_project! {
    /// Makes the service of a connection.
    #[allow(missing_debug_implementations, reason = "nobody gets to see it")]
    pub struct Layered<F> {
        #[pin]
        making: F,
        layer: Defer<()>,
    }
}

impl<S, E, F: Future<Output = Result<S, E>>> Future for Layered<F> {
    type Output = Result<Defer<S>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let service = ready!(this.making.poll(cx))?;
        Poll::Ready(Ok(this.layer.around(service)))
    }
}

pin_project! {
    /// Makes the service of a connection of [`axum::serve()`].
    #[allow(missing_debug_implementations, reason = "nobody gets to see it")]
    pub struct LayeredUnderAxum<F> {
        #[pin]
        layered: Layered<F>,
    }
}

impl<S, E, F: Future<Output = Result<S, E>>> Future for LayeredUnderAxum<F> {
    type Output = Result<UnderAxum<Defer<S>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let layered = ready!(self.project().layered.poll(cx))?;
        Poll::Ready(Ok(UnderAxum::new(layered)))
    }
}

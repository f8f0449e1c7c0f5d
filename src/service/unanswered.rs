//! A request that has no response yet, driven by whoever holds the future.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::Response;
use http_body::Body;
use pin_project_lite::pin_project;

use super::{body::ResponseBody, held_back::HeldBack, requested::Requested};
use crate::runner::scoped::Scoped;

pin_project! {
    /// Polls the inner service inside of the scope, and hands the right to decide it to the body.
    ///
    /// Dropped before it is ready, or when the service fails or panics, it decides that there was
    /// no response.
    pub(super) struct Unanswered<F, B> {
        #[pin]
        pub(super) handler: Scoped<F>,
        pub(super) request: Option<Requested>,
        // Boxed, so that it takes no room where it is not used.
        pub(super) held_back: Option<Box<HeldBack<B>>>,
    }
}

impl<F, B, E> Future for Unanswered<F, B>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: Body,
{
    type Output = Result<Response<ResponseBody<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        if let Some(held_back) = this.held_back {
            return held_back.poll_release(cx).map(Ok);
        }
        let answer = ready!(this.handler.as_mut().poll_inside(cx));
        let (Some(mut request), Some(completer)) =
            (this.request.take(), this.handler.take_completer())
        else {
            return Poll::Pending;
        };
        request.is_answered(&completer);
        let response = answer?;
        if completer.release_head() {
            let held_back = this
                .held_back
                .insert(Box::new(HeldBack::new(request, response, completer)));
            return held_back.poll_release(cx).map(Ok);
        }
        Poll::Ready(Ok(request.answer(response, completer)))
    }
}

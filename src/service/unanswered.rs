//! A request that has no response yet, driven by whoever holds the future.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::Response;
use http_body::Body;
use pin_project_lite::pin_project;

use super::body::ResponseBody;
use crate::{
    response::{classify::Classifier, end_of_body::Exchange},
    runner::completer::Completer,
};

pin_project! {
    /// Polls the inner service inside of the scope, and hands the right to decide it to the body.
    ///
    /// Dropped before it is ready, or when the service fails or panics, it decides that there was
    /// no response. Whoever takes the response says when it has been
    /// [handed over](ResponseBody::handed_over).
    pub(super) struct Unanswered<F> {
        // Dropped before the scope is decided: what the handler holds is gone when callbacks run.
        #[pin]
        pub(super) inner: F,
        pub(super) request: Option<Requested>,
    }
}

/// What of a request its response needs.
pub(super) struct Requested {
    pub(super) completer: Completer,
    pub(super) classifier: Classifier,
    pub(super) exchange: Exchange,
}

impl Requested {
    /// There is a response, or it is known that there will be none.
    pub(super) fn is_answered(&self) {
        if let Some(scope) = self.completer.scope() {
            scope.watch_if_shared();
        }
    }

    pub(super) fn answer<B: Body>(self, response: Response<B>) -> Response<ResponseBody<B>> {
        ResponseBody::wrap(response, self.exchange, self.classifier, self.completer)
    }
}

impl<F> Unanswered<F> {
    pub(super) fn new(inner: F, request: Requested) -> Self {
        Self {
            inner,
            request: Some(request),
        }
    }
}

impl<F, B, E> Future for Unanswered<F>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: Body,
{
    type Output = Result<Response<ResponseBody<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let answer = {
            let request = this.request.as_mut();
            let request = request.expect("futures are not polled after they are ready");
            let _entered = request.completer.enter();
            ready!(this.inner.poll(cx))
        };
        let Some(request) = this.request.take() else {
            return Poll::Pending;
        };
        request.is_answered();
        Poll::Ready(Ok(request.answer(answer?)))
    }
}

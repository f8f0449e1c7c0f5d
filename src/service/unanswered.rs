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
    /// no response.
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
    /// Who polls this takes the response to the server; else it says itself when it
    /// [does](ResponseBody::handed_over).
    pub(super) hands_over: bool,
}

impl Requested {
    /// There is a response, or it is known that there will be none.
    pub(super) fn is_answered(&self) {
        if let Some(scope) = self.completer.scope() {
            scope.watch_if_shared();
        }
    }

    pub(super) fn answer<B: Body>(self, response: Response<B>) -> Response<ResponseBody<B>> {
        let hands_over = self.hands_over;
        let mut response =
            ResponseBody::wrap(response, self.exchange, self.classifier, self.completer);
        if hands_over {
            response.body_mut().handed_over();
        }
        response
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

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
    runner::{completer::Completer, scoped::Scoped},
};

pin_project! {
    /// Polls the inner service inside of the scope, and hands the right to decide it to the body.
    ///
    /// Dropped before it is ready, or when the service fails or panics, it decides that there was
    /// no response.
    pub(super) struct Unanswered<F> {
        #[pin]
        pub(super) handler: Scoped<F>,
        pub(super) request: Option<Requested>,
    }
}

/// What of a request its response needs.
pub(super) struct Requested {
    pub(super) classifier: Classifier,
    pub(super) exchange: Exchange,
    /// Who polls this takes the response to the server; else it says itself when it
    /// [does](ResponseBody::handed_over).
    pub(super) hands_over: bool,
}

impl Requested {
    pub(super) fn answer<B: Body>(
        self,
        response: Response<B>,
        completer: Completer,
    ) -> Response<ResponseBody<B>> {
        let mut response = ResponseBody::wrap(response, self.exchange, self.classifier, completer);
        if self.hands_over {
            response.body_mut().handed_over();
        }
        response
    }
}

/// There is a response, or it is known that there will be none.
pub(super) fn is_answered(completer: &Completer) {
    if let Some(scope) = completer.scope() {
        scope.watch_if_shared();
    }
}

impl<F, B, E> Future for Unanswered<F>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: Body,
{
    type Output = Result<Response<ResponseBody<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let answer = ready!(this.handler.as_mut().poll_inside(cx));
        let (Some(request), Some(completer)) = (this.request.take(), this.handler.take_completer())
        else {
            return Poll::Pending;
        };
        is_answered(&completer);
        Poll::Ready(Ok(request.answer(answer?, completer)))
    }
}

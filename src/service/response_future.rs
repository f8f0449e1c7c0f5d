//! The response future, which tells when a response leaves the layer.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use super::{body::ResponseBody, to_completion::Awaited, unanswered::Unanswered};
use http::Response;
use http_body::Body;
use pin_project_lite::pin_project;

pin_project! {
    /// The response future of [`Defer`](crate::Defer).
    ///
    /// Dropped before it is ready, it decides that there was no response; but for
    /// [`run_to_completion`](crate::DeferLayer::run_to_completion), where the request goes on.
    pub struct ResponseFuture<F, B, E> {
        // Nothing is in it if the request is driven apart.
        #[pin]
        pub(super) unanswered: Unanswered<F, B>,
        // Boxed, so that it takes no room where it is not used.
        pub(super) apart: Option<Box<Apart<B, E>>>,
    }
}

type Answer<B, E> = Result<Response<ResponseBody<B>>, E>;

/// By whom a request is driven that its connection does not drive.
pub(super) enum Apart<B, E> {
    ToCompletion(Awaited<Answer<B, E>>),
    Inline(Pin<Box<dyn Future<Output = Answer<B, E>> + Send>>),
}

impl<F, B, E> Future for ResponseFuture<F, B, E>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: Body,
{
    type Output = Answer<B, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let Some(apart) = this.apart else {
            // It has handed the response over.
            return this.unanswered.poll(cx);
        };
        let answer = match &mut **apart {
            Apart::ToCompletion(task) => match ready!(Pin::new(task).poll(cx)) {
                Ok(answer) => answer,
                Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                // The runtime is shutting down, and this task with it.
                Err(_cancelled) => return Poll::Pending,
            },
            Apart::Inline(boxed) => ready!(boxed.as_mut().poll(cx)),
        };
        Poll::Ready(answer.map(|mut response| {
            response.body_mut().handed_over();
            response
        }))
    }
}

impl<F, B, E> fmt::Debug for ResponseFuture<F, B, E> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("ResponseFuture")
            .finish_non_exhaustive()
    }
}

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
        #[pin]
        pub(super) driven: Driven<F, B, E>,
    }
}

type Answer<B, E> = Result<Response<ResponseBody<B>>, E>;

pin_project! {
    /// By whom the request is driven.
    #[project = DrivenProjection]
    pub(super) enum Driven<F, B, E> {
        InPlace {
            #[pin]
            unanswered: Unanswered<F, B>,
        },
        ToCompletion {
            task: Awaited<Answer<B, E>>,
        },
        // Boxed, so that it takes no room where it is not used.
        Inline {
            boxed: Pin<Box<dyn Future<Output = Answer<B, E>> + Send>>,
        },
    }
}

impl<F, B, E> Future for ResponseFuture<F, B, E>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: Body,
{
    type Output = Answer<B, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = match self.project().driven.project() {
            // It has handed the response over.
            DrivenProjection::InPlace { unanswered } => return unanswered.poll(cx),
            DrivenProjection::ToCompletion { task } => match ready!(Pin::new(task).poll(cx)) {
                Ok(answer) => answer,
                Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                // The runtime is shutting down, and this task with it.
                Err(_cancelled) => return Poll::Pending,
            },
            DrivenProjection::Inline { boxed } => ready!(boxed.as_mut().poll(cx)),
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

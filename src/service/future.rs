//! The response future: polls the handler inside its scope.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use super::{
    before_response::{BeforeResponse, failure},
    body::ResponseBody,
    request_context::RequestContext,
    run_to_completion::HandlerTask,
};
use crate::{runner::completion_guard::CompletionGuard, scope::options::Options};
use http::Response;
use http_body::Body;
use pin_project_lite::pin_project;

pin_project! {
    /// The response future of [`Defer`](crate::Defer).
    ///
    /// If it is dropped before it is ready, there was no response. With
    /// [`run_to_completion`](crate::DeferLayer::run_to_completion), the request continues instead.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// use axum::{Router, body::Body, extract::Request};
    /// use axum_defer::DeferLayer;
    /// use tower::{Layer, Service};
    ///
    /// let mut service = DeferLayer::new().layer(Router::new());
    /// // `ResponseFuture` is what `call` returns.
    /// let response = service.call(Request::new(Body::empty())).await.unwrap();
    /// assert_eq!(response.status(), 404);
    /// # }
    /// ```
    // Flat, because each struct around the inner future would add a move.
    pub struct ResponseFuture<F, B, E> {
        #[pin]
        pub(super) future: Option<F>,
        pub(super) pending: Option<Pending>,
        // Boxed, because few requests have it.
        pub(super) indirect: Option<Box<Indirect<B, E>>>,
    }

    impl<F, B, E> PinnedDrop for ResponseFuture<F, B, E> {
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
            // A destructor may still defer, unless there is a response.
            if let Some(pending) = this.pending {
                let _entered = pending.guard.enter();
                this.future.set(None);
            }
        }
    }
}

/// A request without a response yet.
pub(super) struct Pending {
    pub(super) guard: CompletionGuard,
    pub(super) request: RequestContext,
}

type Output<B, E> = Result<Response<ResponseBody<B>>, E>;

/// A response that does not come directly from the inner future.
#[expect(clippy::large_enum_variant, reason = "it is boxed as a whole")]
pub(super) enum Indirect<B, E> {
    BeforeResponse(BeforeResponse<B>),
    RunToCompletion(HandlerTask<Output<B, E>>, Arc<Options>),
    Inline(Pin<Box<dyn Future<Output = Output<B, E>> + Send>>),
}

impl<F, B, E> ResponseFuture<F, B, E> {
    pub(super) fn indirect(indirect: Indirect<B, E>) -> Self {
        Self {
            future: None,
            pending: None,
            indirect: Some(Box::new(indirect)),
        }
    }
}

impl<F, B, E> Future for ResponseFuture<F, B, E>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: Body<Error: fmt::Display> + Send + 'static,
{
    type Output = Output<B, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let Some(indirect) = this.indirect {
            return indirect.poll(cx);
        }
        let result = match (&mut *this.pending, this.future.as_pin_mut()) {
            (Some(pending), Some(future)) => {
                let _entered = pending.guard.enter();
                ready!(future.poll(cx))
            }
            _ => panic!("futures are not polled after they are ready"),
        };
        let Some(mut pending) = this.pending.take() else {
            return Poll::Pending;
        };
        pending.request.head_ready(&pending.guard);
        let Pending { guard, request } = pending;
        match result {
            Err(error) => Poll::Ready(Err(error)),
            Ok(response) if guard.release_head() => {
                let before = BeforeResponse::new(request, response, guard);
                let indirect = Box::new(Indirect::BeforeResponse(before));
                this.indirect.insert(indirect).poll(cx)
            }
            Ok(response) => Poll::Ready(Ok(request.into_response(response, guard))),
        }
    }
}

impl<B, E> Indirect<B, E>
where
    B: Body<Error: fmt::Display> + Send + 'static,
{
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Output<B, E>> {
        let result = match self {
            // It hands the response off if it is the last hop.
            Self::BeforeResponse(before) => return before.poll_response(cx).map(Ok),
            Self::RunToCompletion(task, options) => match ready!(Pin::new(task).poll(cx)) {
                Ok(result) => result,
                Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                // The runtime of the handler has ended.
                Err(_cancelled) => Ok(failure(&Some(options))),
            },
            Self::Inline(boxed) => ready!(boxed.as_mut().poll(cx)),
        };
        Poll::Ready(result.map(|mut response| {
            response.body_mut().handed_off();
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

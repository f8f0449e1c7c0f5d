//! The response future, which tells when a response leaves the layer.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use super::{
    body::ResponseBody, held_back::HeldBack, requested::Requested, to_completion::Awaited,
};
use crate::runner::completer::Completer;
use http::Response;
use http_body::Body;
use pin_project_lite::pin_project;

pin_project! {
    /// The response future of [`Defer`](crate::Defer).
    ///
    /// Dropped before it is ready, it decides that there was no response; but for
    /// [`run_to_completion`](crate::DeferLayer::run_to_completion), where the request goes on.
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
    // Flat, because it is moved once for each struct around the inner future. It polls and drops
    // that inside of the scope, which it has the right to decide.
    pub struct ResponseFuture<F, B, E> {
        #[pin]
        pub(super) future: Option<F>,
        pub(super) asked: Option<Asked>,
        // Boxed, so that it takes no room where it is not used.
        pub(super) elsewhere: Option<Box<Elsewhere<B, E>>>,
    }

    impl<F, B, E> PinnedDrop for ResponseFuture<F, B, E> {
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
            // A destructor may still defer, unless there is a response already.
            if let Some(asked) = this.asked {
                let _entered = asked.completer.enter();
                this.future.set(None);
            }
        }
    }
}

/// A request that has no response yet.
pub(super) struct Asked {
    pub(super) completer: Completer,
    pub(super) request: Requested,
}

type Answer<B, E> = Result<Response<ResponseBody<B>>, E>;

/// Where the response comes from, if it does not come right from the inner future.
pub(super) enum Elsewhere<B, E> {
    HeldBack(HeldBack<B>),
    ToCompletion(Awaited<Answer<B, E>>),
    Inline(Pin<Box<dyn Future<Output = Answer<B, E>> + Send>>),
}

impl<F, B, E> ResponseFuture<F, B, E> {
    pub(super) fn elsewhere(elsewhere: Elsewhere<B, E>) -> Self {
        Self {
            future: None,
            asked: None,
            elsewhere: Some(Box::new(elsewhere)),
        }
    }
}

impl<F, B, E> Future for ResponseFuture<F, B, E>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: Body,
{
    type Output = Answer<B, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let Some(elsewhere) = this.elsewhere {
            return elsewhere.poll(cx);
        }
        let answer = match (&mut *this.asked, this.future.as_pin_mut()) {
            (Some(asked), Some(future)) => {
                let _entered = asked.completer.enter();
                ready!(future.poll(cx))
            }
            _ => panic!("futures are not polled after they are ready"),
        };
        let Some(mut asked) = this.asked.take() else {
            return Poll::Pending;
        };
        asked.request.is_answered(&asked.completer);
        let Asked { completer, request } = asked;
        match answer {
            Err(error) => Poll::Ready(Err(error)),
            Ok(response) if completer.release_head() => {
                let held_back = HeldBack::new(request, response, completer);
                let elsewhere = Box::new(Elsewhere::HeldBack(held_back));
                this.elsewhere.insert(elsewhere).poll(cx)
            }
            Ok(response) => Poll::Ready(Ok(request.answer(response, completer))),
        }
    }
}

impl<B: Body, E> Elsewhere<B, E> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Answer<B, E>> {
        let answer = match self {
            // It hands the response over, where this is to do so.
            Self::HeldBack(held_back) => return held_back.poll_release(cx).map(Ok),
            Self::ToCompletion(task) => match ready!(Pin::new(task).poll(cx)) {
                Ok(answer) => answer,
                Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                // The runtime is shutting down, and this task with it.
                Err(_cancelled) => return Poll::Pending,
            },
            Self::Inline(boxed) => ready!(boxed.as_mut().poll(cx)),
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

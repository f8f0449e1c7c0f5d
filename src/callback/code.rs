//! The code of one callback, in a form that its turn can poll.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use pin_project_lite::pin_project;

use super::output::{CallbackOutput, Failure};
use crate::completion::Completion;

/// One callback, polled in place.
pub trait Callback: Send {
    fn poll_callback(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        completion: &Completion,
    ) -> Poll<Result<(), Failure>>;
}

pin_project! {
    pub(crate) struct FutureCallback<F> {
        #[pin]
        pub(super) future: F,
    }
}

impl<F> Callback for FutureCallback<F>
where
    F: Future<Output: CallbackOutput> + Send,
{
    fn poll_callback(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        _: &Completion,
    ) -> Poll<Result<(), Failure>> {
        self.project()
            .future
            .poll(cx)
            .map(CallbackOutput::into_result)
    }
}

pin_project! {
    #[project = ClosureProjection]
    pub(crate) enum ClosureCallback<F, Fut> {
        Waiting { closure: Option<F> },
        Running { #[pin] future: Fut },
    }
}

impl<F, Fut> ClosureCallback<F, Fut>
where
    F: FnOnce(Completion) -> Fut,
{
    pub(crate) fn new(closure: F) -> Self {
        Self::Waiting {
            closure: Some(closure),
        }
    }
}

impl<F, Fut> Callback for ClosureCallback<F, Fut>
where
    F: FnOnce(Completion) -> Fut + Send,
    Fut: Future<Output: CallbackOutput> + Send,
{
    fn poll_callback(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        completion: &Completion,
    ) -> Poll<Result<(), Failure>> {
        loop {
            let future = match self.as_mut().project() {
                ClosureProjection::Running { future } => {
                    return future.poll(cx).map(CallbackOutput::into_result);
                }
                ClosureProjection::Waiting { closure } => {
                    let closure = closure.take().expect("not polled after a panic");
                    closure(*completion)
                }
            };
            self.set(Self::Running { future });
        }
    }
}

//! A future inside a scope, with the right to decide it.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use pin_project_lite::pin_project;

use super::completion_guard::CompletionGuard;

pin_project! {
    /// A future that is polled and dropped inside a scope. The scope is decided after the future has
    /// been dropped, because destructors may defer.
    pub(crate) struct Scoped<F> {
        #[pin]
        future: Option<F>,
        guard: Option<CompletionGuard>,
    }

    impl<F> PinnedDrop for Scoped<F> {
        fn drop(this: Pin<&mut Self>) {
            this.drop_future();
        }
    }
}

impl<F> Scoped<F> {
    pub(crate) fn new(guard: CompletionGuard, future: F) -> Self {
        Self {
            future: Some(future),
            guard: Some(guard),
        }
    }

    /// Drops the future inside the scope.
    pub(crate) fn drop_future(self: Pin<&mut Self>) {
        let mut this = self.project();
        let _entered = this.guard.as_mut().map(CompletionGuard::enter);
        this.future.set(None);
    }

    /// Takes the right to decide the scope.
    pub(crate) fn take_guard(self: Pin<&mut Self>) -> Option<CompletionGuard> {
        self.project().guard.take()
    }

    /// Polls the future inside the scope.
    ///
    /// # Panics
    ///
    /// Panics if the guard was taken or the future dropped, because it was ready then.
    pub(crate) fn poll_in_scope(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output>
    where
        F: Future,
    {
        let this = self.project();
        let (Some(guard), Some(future)) = (this.guard, this.future.as_pin_mut()) else {
            panic!("futures are not polled after they are ready");
        };
        let _entered = guard.enter();
        future.poll(cx)
    }
}

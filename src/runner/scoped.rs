//! A future that belongs to a scope, until it is ready or dropped.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use pin_project_lite::pin_project;

use super::completer::Completer;

pin_project! {
    /// Polls and drops a future inside of a scope, and has the right to decide it meanwhile.
    ///
    /// What the future holds is gone before the scope is decided: a destructor may still defer.
    pub(crate) struct Scoped<F> {
        // Gone when the scope has been decided, or is about to be.
        #[pin]
        future: Option<F>,
        completer: Option<Completer>,
    }

    impl<F> PinnedDrop for Scoped<F> {
        fn drop(this: Pin<&mut Self>) {
            this.drop_future();
        }
    }
}

impl<F> Scoped<F> {
    pub(crate) fn new(completer: Completer, future: F) -> Self {
        Self {
            future: Some(future),
            completer: Some(completer),
        }
    }

    /// Drops the future, if it is there, inside of the scope if that is not decided.
    pub(crate) fn drop_future(self: Pin<&mut Self>) {
        let mut this = self.project();
        let _entered = this.completer.as_mut().map(Completer::enter);
        this.future.set(None);
    }

    /// The right to decide the scope, for who has what the future was for.
    pub(crate) fn take_completer(self: Pin<&mut Self>) -> Option<Completer> {
        self.project().completer.take()
    }

    /// # Panics
    ///
    /// When the right to decide was taken, or the future dropped: it was ready then.
    pub(crate) fn poll_inside(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output>
    where
        F: Future,
    {
        let this = self.project();
        let (Some(completer), Some(future)) = (this.completer, this.future.as_pin_mut()) else {
            panic!("futures are not polled after they are ready");
        };
        let _entered = completer.enter();
        future.poll(cx)
    }
}

//! The end of a server, as its connections hear of it.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use tokio_util::sync::WaitForCancellationFutureOwned;

use crate::drain::stopping::Stopping;

/// Ready when the server stops.
///
/// A connection asks whenever it has done something, and what tells it is shared by all of them: so
/// it waits once, and after that only looks.
pub(super) struct Stop {
    stopping: Stopping,
    waiting: Pin<Box<WaitForCancellationFutureOwned>>,
    /// Whom `waiting` wakes.
    wakes: Option<Waker>,
}

impl Stop {
    pub(super) fn of(stopping: &Stopping) -> Self {
        Self {
            stopping: stopping.clone(),
            waiting: Box::pin(stopping.begun().clone().cancelled_owned()),
            wakes: None,
        }
    }
}

impl Future for Stop {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        if this.stopping.has_begun() {
            return Poll::Ready(());
        }
        let wakes_this_task = this
            .wakes
            .as_ref()
            .is_some_and(|waker| waker.will_wake(cx.waker()));
        if wakes_this_task {
            return Poll::Pending;
        }
        let polled = this.waiting.as_mut().poll(cx);
        if polled.is_pending() {
            this.wakes = Some(cx.waker().clone());
        }
        polled
    }
}

//! Keeps new requests waiting while too many callbacks are pending.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::sync::futures::OwnedNotified;

use crate::drain::tracker::Tracker;

/// The place in the queue of one clone of the service.
#[derive(Default)]
pub(crate) struct Admission {
    waiting: Option<Pin<Box<OwnedNotified>>>,
}

impl Admission {
    pub(crate) fn poll_room(
        &mut self,
        tracker: &Tracker,
        limit: usize,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        // Before the look at the count: from here on, no end of a callback goes unheard.
        let room = tracker.room();
        let mut has_waited = self.waiting.is_some();
        while tracker.callbacks() >= limit {
            let waiting = self
                .waiting
                .get_or_insert_with(|| Box::pin(room.clone().notified_owned()));
            ready!(waiting.as_mut().poll(cx));
            self.waiting = None;
            has_waited = true;
        }
        self.waiting = None;
        if has_waited {
            // One callback's end wakes one request. There may be room for more than that, since
            // not every request defers something.
            room.notify_one();
        }
        Poll::Ready(())
    }
}

//! Keeps new requests waiting while too many callbacks are pending.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use tokio::sync::futures::OwnedNotified;

use crate::drain::{reservation::Reservation, tracker::Tracker};

/// One clone of the service: it waits for a place, or has one for the request that comes next.
#[derive(Default)]
pub(crate) struct Admission {
    waiting: Option<Pin<Box<OwnedNotified>>>,
    place: Option<Reservation>,
}

impl Admission {
    pub(crate) fn poll_place(
        &mut self,
        tracker: &Arc<Tracker>,
        limit: usize,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        if self.place.is_some() {
            return Poll::Ready(());
        }
        // Before the look at the count: from here on, no end of a callback goes unheard.
        let room = tracker.room();
        let mut has_waited = self.waiting.is_some();
        loop {
            self.place = Reservation::take(tracker, limit);
            if self.place.is_some() {
                break;
            }
            let waiting = self
                .waiting
                .get_or_insert_with(|| Box::pin(room.clone().notified_owned()));
            ready!(waiting.as_mut().poll(cx));
            self.waiting = None;
            has_waited = true;
        }
        self.waiting = None;
        if has_waited {
            // Two ends in quick succession may have woken this one alone.
            room.notify_one();
        }
        Poll::Ready(())
    }

    /// The place of the request that comes now.
    #[inline]
    pub(crate) fn take_place(&mut self) -> Option<Reservation> {
        self.place.take()
    }
}

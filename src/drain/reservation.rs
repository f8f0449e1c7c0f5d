//! The place of a request under `max_pending`, from its admission until it defers.

use std::sync::Arc;

use super::tracker::Tracker;

/// Counts as a callback that is pending, until it is dropped.
pub(crate) struct Reservation(Arc<Tracker>);

impl Reservation {
    /// A place, if fewer than `limit` are taken. Where it is not, [`Tracker::room`] tells when to
    /// ask again.
    pub(crate) fn take(tracker: &Arc<Tracker>, limit: usize) -> Option<Self> {
        tracker.reserve(limit).then(|| Self(tracker.clone()))
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.0.unreserve();
    }
}

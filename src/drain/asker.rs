//! Who can ask a tracker what is unfinished.

use std::sync::Arc;

use super::tracker::Tracker;

/// As long as there is one, scopes that have callbacks are listed; where nobody can ask, they need
/// not be.
///
/// A layer is one, since it gives out handles; so are those, and a server that drains.
pub(crate) struct Asker(Arc<Tracker>);

impl Asker {
    pub(crate) fn new(tracker: Arc<Tracker>) -> Self {
        tracker.asker_comes();
        Self(tracker)
    }

    pub(crate) fn tracker(&self) -> &Arc<Tracker> {
        &self.0
    }
}

impl Clone for Asker {
    fn clone(&self) -> Self {
        Self::new(self.0.clone())
    }
}

impl Drop for Asker {
    fn drop(&mut self) {
        self.0.asker_goes();
    }
}

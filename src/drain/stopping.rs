//! The end of a server, for those who want to know of it, and to be waited for.

use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::{TaskTracker, task_tracker::TaskTrackerToken},
};

/// Whether a server has begun to stop, and who is waited for until it has.
#[derive(Clone, Default)]
pub(crate) struct Stopping {
    begun: CancellationToken,
    holders: TaskTracker,
}

impl Stopping {
    /// The server stops when the guard is dropped, if not before.
    pub(crate) fn at_the_latest_here(&self) -> DropGuard {
        self.begun.clone().drop_guard()
    }

    pub(crate) fn begin(&self) {
        self.begun.cancel();
    }

    pub(crate) fn begun(&self) -> &CancellationToken {
        &self.begun
    }

    /// Somebody to wait for.
    pub(crate) fn hold(&self) -> TaskTrackerToken {
        self.holders.token()
    }

    pub(crate) fn holders(&self) -> usize {
        self.holders.len()
    }

    /// Waits until nobody holds it.
    pub(crate) async fn wait_for_holders(&self) {
        self.holders.close();
        self.holders.wait().await;
    }
}

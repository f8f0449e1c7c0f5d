//! The end of a server, for those who want to know of it, and to be waited for.

use std::sync::{
    Arc,
    atomic::{
        AtomicBool,
        Ordering::{Acquire, Release},
    },
};

use tokio_util::{
    sync::CancellationToken,
    task::{TaskTracker, task_tracker::TaskTrackerToken},
};

/// Whether a server has begun to stop, and who is waited for until it has.
#[derive(Clone, Default)]
pub(crate) struct Stopping {
    begun: CancellationToken,
    /// Set before `begun` tells anybody. All connections ask for it all the time, and `begun` has a
    /// lock.
    has_begun: Arc<AtomicBool>,
    holders: TaskTracker,
}

impl Stopping {
    /// The server stops when the guard is dropped, if not before.
    pub(crate) fn at_the_latest_here(&self) -> StopsAtTheLatest {
        StopsAtTheLatest(self.clone())
    }

    pub(crate) fn begin(&self) {
        self.has_begun.store(true, Release);
        self.begun.cancel();
    }

    pub(crate) fn has_begun(&self) -> bool {
        self.has_begun.load(Acquire)
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

pub(crate) struct StopsAtTheLatest(Stopping);

impl Drop for StopsAtTheLatest {
    fn drop(&mut self) {
        self.0.begin();
    }
}

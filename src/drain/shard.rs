//! One part of what a tracker counts: that of the scopes which were opened on some of the threads.

use std::sync::{
    Mutex, MutexGuard, PoisonError, Weak,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use slab::Slab;

use super::{
    report::UnfinishedCallback,
    tally::{End, Tally},
};
use crate::sync::{self, Ordering::SeqCst};

/// A scope as the tracker sees it.
pub(crate) trait Unfinished: Send + Sync {
    fn unfinished(&self) -> Vec<UnfinishedCallback>;
}

/// On cache lines of its own, or threads would meet there.
///
/// What is registered and what is over only ever grow, each in one step: so who reads first what is
/// over, in all shards, and then what is registered, and finds them equal, knows of a moment in
/// between at which nothing was left.
#[derive(Default)]
#[repr(align(128))]
pub(super) struct Shard {
    registered: sync::AtomicU64,
    /// The callbacks that are over, in units of [`OVER`]; and how many are running. So that one which
    /// ends is counted out of both at once.
    over: sync::AtomicU64,
    /// Requests that hold the drain up.
    held: sync::AtomicU64,
    /// Of these, those that do no more.
    let_go: sync::AtomicU64,
    ran: AtomicU64,
    failed: AtomicU64,
    skipped: AtomicU64,
    lost: AtomicU64,
    /// The scopes that have callbacks, so that a drain that ran out of time can name them.
    scopes: Mutex<Slab<Weak<dyn Unfinished>>>,
}

/// What is over may wrap around at the upper end: only the difference to what is registered counts.
const OVER: u64 = 1 << RUNNING_BITS;
const RUNNING_BITS: u32 = 28;

/// What was over when somebody looked.
pub(super) struct Over {
    callbacks: u64,
    requests: u64,
}

impl Over {
    pub(super) fn running(&self) -> usize {
        (self.callbacks % OVER) as usize
    }
}

impl Shard {
    #[inline]
    pub(super) fn register(&self) {
        self.registered.fetch_add(1, SeqCst);
    }

    /// A callback runs that follows no other one.
    #[inline]
    pub(super) fn run(&self) {
        self.over.fetch_add(1, SeqCst);
    }

    /// One is over, and where it was running, either another one runs in its place or fewer do.
    #[inline]
    pub(super) fn end(&self, runs_no_more: bool) {
        self.over.fetch_add(OVER - u64::from(runs_no_more), SeqCst);
    }

    #[inline]
    pub(super) fn count(&self, end: End) {
        let tally = match end {
            End::Ran => &self.ran,
            End::Failed => &self.failed,
            End::Skipped => &self.skipped,
            End::Lost => &self.lost,
            End::Withdrawn => return,
        };
        // Seen by whoever sees that the callback is over.
        tally.fetch_add(1, Relaxed);
    }

    pub(super) fn hold(&self) {
        self.held.fetch_add(1, SeqCst);
    }

    pub(super) fn let_go(&self) {
        self.let_go.fetch_add(1, SeqCst);
    }

    pub(super) fn over(&self) -> Over {
        Over {
            callbacks: self.over.load(SeqCst),
            requests: self.let_go.load(SeqCst),
        }
    }

    /// Callbacks that are left, if this was over.
    pub(super) fn callbacks_beyond(&self, over: &Over) -> usize {
        let registered = self.registered.load(SeqCst).wrapping_mul(OVER);
        let over = over.callbacks - over.callbacks % OVER;
        (registered.wrapping_sub(over) >> RUNNING_BITS) as usize
    }

    /// Requests that are left, if this was over.
    pub(super) fn requests_beyond(&self, over: &Over) -> usize {
        (self.held.load(SeqCst) - over.requests) as usize
    }

    pub(super) fn tally(&self) -> Tally {
        Tally {
            ran: self.ran.load(SeqCst),
            failed: self.failed.load(SeqCst),
            skipped: self.skipped.load(SeqCst),
            lost: self.lost.load(SeqCst),
        }
    }

    /// Lists a scope until [`Shard::delist`] with the key that this returns.
    pub(super) fn list(&self, scope: Weak<dyn Unfinished>) -> usize {
        self.scopes().insert(scope)
    }

    pub(super) fn delist(&self, key: usize) {
        let removed = self.scopes().try_remove(key);
        drop(removed);
    }

    pub(super) fn listed(&self) -> Vec<Weak<dyn Unfinished>> {
        let scopes = self.scopes();
        scopes.iter().map(|(_, scope)| scope.clone()).collect()
    }

    fn scopes(&self) -> MutexGuard<'_, Slab<Weak<dyn Unfinished>>> {
        self.scopes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_over_may_wrap_around_while_callbacks_run() {
        let nearly = (1 << (u64::BITS - RUNNING_BITS)) - 1;
        let shard = Shard::default();
        shard.registered.store(nearly, SeqCst);
        shard.over.store(nearly * OVER, SeqCst);
        let counts = || {
            let over = shard.over();
            (shard.callbacks_beyond(&over), over.running())
        };
        assert_eq!(counts(), (0, 0));
        for _ in 0..3 {
            shard.register();
        }
        shard.run();
        assert_eq!(counts(), (3, 1));
        shard.end(false);
        assert_eq!(counts(), (2, 1));
        shard.run();
        assert_eq!(counts(), (2, 2));
        shard.end(true);
        shard.end(true);
        assert_eq!(counts(), (0, 0));
    }
}

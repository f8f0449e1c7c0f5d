//! Counts what is pending and running in all scopes of a layer, and waits for it.

use std::sync::{
    Arc, Weak,
    atomic::{
        AtomicBool, AtomicU64, AtomicUsize,
        Ordering::{Relaxed, SeqCst},
    },
};

use tokio::sync::Notify;

use super::{listed::Listed, report::UnfinishedCallback};

/// What is known of all scopes of a layer and its clones.
#[derive(Default)]
pub(crate) struct Tracker {
    /// Callbacks that are registered or running, and requests that hold the drain up; and, in
    /// units of [`RUNNING`], the callbacks that are running.
    active: AtomicU64,
    held: AtomicUsize,
    /// Requests that were admitted under `max_pending` and have deferred nothing yet.
    reserved: AtomicUsize,
    /// Somebody has a handle, with which to ask what is pending.
    is_watched: AtomicBool,
    ran: AtomicU64,
    failed: AtomicU64,
    skipped: AtomicU64,
    lost: AtomicU64,
    idle: Notify,
    /// Those who wait for `idle`, so that the last callback need not call into the void.
    waiting_for_idle: AtomicUsize,
    /// Wakes requests that wait because of `max_pending`.
    room: Arc<Notify>,
    /// Some request has come upon `max_pending`.
    has_limit: AtomicBool,
    /// The scopes that have callbacks, so that a drain that ran out of time can name them.
    scopes: Listed,
}

/// One atomic holds both counts, so that a callback which ends is counted out of both at once.
const RUNNING: u64 = 1 << 32;

/// A scope as the tracker sees it.
pub(crate) trait Unfinished: Send + Sync {
    fn unfinished(&self) -> Vec<UnfinishedCallback>;
}

impl Tracker {
    pub(crate) fn registered(&self) {
        self.active.fetch_add(1, SeqCst);
        #[cfg(feature = "metrics")]
        crate::observe::meter::pending(1.0);
    }

    pub(crate) fn started(&self) {
        self.active.fetch_add(RUNNING, SeqCst);
        #[cfg(feature = "metrics")]
        {
            crate::observe::meter::pending(-1.0);
            crate::observe::meter::running(1.0);
        }
    }

    /// A callback that had started is over.
    pub(crate) fn ended(&self, end: End) {
        #[cfg(feature = "metrics")]
        crate::observe::meter::running(-1.0);
        self.count(end);
        self.released(RUNNING + 1);
    }

    /// A callback that had not started never will.
    pub(crate) fn dropped(&self, end: End) {
        #[cfg(feature = "metrics")]
        crate::observe::meter::pending(-1.0);
        self.count(end);
        self.released(1);
    }

    fn count(&self, end: End) {
        let tally = match end {
            End::Ran => Some(&self.ran),
            End::Failed => Some(&self.failed),
            End::Skipped => Some(&self.skipped),
            End::Lost => Some(&self.lost),
            End::Withdrawn => None,
        };
        if let Some(tally) = tally {
            // Seen by whoever sees that the callback is not active any more.
            tally.fetch_add(1, Relaxed);
        }
    }

    /// Keeps the tracker from being idle until [`Tracker::let_go`].
    pub(crate) fn hold(&self) {
        self.held.fetch_add(1, SeqCst);
        self.active.fetch_add(1, SeqCst);
    }

    pub(crate) fn let_go(&self) {
        self.held.fetch_sub(1, SeqCst);
        self.released(1);
    }

    fn released(&self, what: u64) {
        // Whoever waits says so first and looks at `active` then; here it is the other way
        // round. So either they see the change, or it is seen here that they wait.
        let is_idle = self.active.fetch_sub(what, SeqCst) == what;
        if is_idle && self.waiting_for_idle.load(SeqCst) > 0 {
            self.idle.notify_waiters();
        }
        if self.has_limit.load(SeqCst) {
            if is_idle {
                // One that was woken may be held by somebody who polls it no more, and no
                // callback is left whose end would wake the next one.
                self.room.notify_waiters();
            }
            self.room.notify_one();
        }
    }

    fn active(&self) -> usize {
        (self.active.load(SeqCst) % RUNNING) as usize
    }

    /// Callbacks that are registered or running.
    pub(crate) fn callbacks(&self) -> usize {
        self.active().saturating_sub(self.held.load(SeqCst))
    }

    /// Takes a place for a request, if there is one.
    pub(super) fn reserve(&self, limit: usize) -> bool {
        let mut reserved = self.reserved.load(SeqCst);
        // A callback is counted before the place that its request had is given back, so the sum
        // is never too small.
        while self.callbacks() + reserved < limit {
            match self
                .reserved
                .compare_exchange_weak(reserved, reserved + 1, SeqCst, SeqCst)
            {
                Ok(_) => return true,
                Err(now) => reserved = now,
            }
        }
        false
    }

    pub(super) fn unreserve(&self) {
        self.reserved.fetch_sub(1, SeqCst);
        self.room.notify_one();
    }

    pub(crate) fn watch(&self) {
        self.is_watched.store(true, SeqCst);
    }

    pub(crate) fn is_watched(&self) -> bool {
        self.is_watched.load(Relaxed)
    }

    pub(super) fn running(&self) -> usize {
        (self.active.load(SeqCst) / RUNNING) as usize
    }

    /// Handlers that are run to completion.
    pub(super) fn held(&self) -> usize {
        self.held.load(SeqCst)
    }

    /// Is told of every callback that ends after this was called.
    pub(crate) fn room(&self) -> &Arc<Notify> {
        if !self.has_limit.load(SeqCst) {
            self.has_limit.store(true, SeqCst);
        }
        &self.room
    }

    /// Lists a scope until [`Tracker::delist`] with the key that this returns.
    pub(crate) fn list(&self, scope: Weak<dyn Unfinished>) -> usize {
        self.scopes.insert(scope)
    }

    pub(crate) fn delist(&self, key: usize) {
        self.scopes.remove(key);
    }

    pub(super) fn unfinished(&self) -> Vec<UnfinishedCallback> {
        self.scopes
            .all()
            .iter()
            .filter_map(Weak::upgrade)
            .flat_map(|scope| scope.unfinished())
            .collect()
    }

    pub(super) async fn wait_idle(&self) {
        let _waiting = Waiting::new(&self.waiting_for_idle);
        loop {
            let mut idle = std::pin::pin!(self.idle.notified());
            // From here on a notification is kept, so none falls between the look and the wait.
            idle.as_mut().enable();
            if self.active() == 0 {
                return;
            }
            idle.await;
        }
    }

    pub(super) fn tally(&self) -> Tally {
        Tally {
            ran: self.ran.load(SeqCst),
            failed: self.failed.load(SeqCst),
            skipped: self.skipped.load(SeqCst),
            lost: self.lost.load(SeqCst),
        }
    }
}

/// Counts somebody who waits.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, SeqCst);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

/// How a callback's time with the tracker ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Ran,
    Failed,
    Skipped,
    Lost,
    /// Cancelled, forgotten or replaced: somebody wanted it so.
    Withdrawn,
}

#[derive(Clone, Copy)]
pub(super) struct Tally {
    pub(super) ran: u64,
    pub(super) failed: u64,
    pub(super) skipped: u64,
    pub(super) lost: u64,
}

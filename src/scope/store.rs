//! The store of a layer: every scope that has callbacks, and the counts of all of them.
//!
//! A scope that has callbacks is one entry of a slab in one of a few shards. Registering, editing,
//! deciding, taking, and ending a callback are each one step under the lock of that shard, and so is
//! reading one shard for a count, a snapshot, or a report. A step returns what the caller must do
//! after the lock: spawn a runner, wake it, drop user data, or notify a drain.
//!
//! ```text
//!            push, release, rename, cancel: at any time
//!
//!   ┌──────┐  decide   ┌─────────┐  one is ready: Start  ┌─────────┐
//!   │ open │──────────▶│ decided │──────────────────────▶│ running │──┐ take
//!   └──────┘   once    └─────────┘                       └─────────┘◀─┘ the next one
//!                           ▲                                 │
//!                           └─────────────────────────────────┘
//!                             none is ready: the runner ends
//! ```
//!
//! An entry is removed by its runner if no handle to the scope is left, and otherwise when the scope
//! is dropped.
//!
//! Threads are assigned to shards in turn. With as many shards as the machine runs threads at once,
//! two workers rarely use the same lock; more shards would only cost memory (128 bytes each).

use std::sync::{
    LazyLock,
    atomic::{
        AtomicUsize,
        Ordering::{Acquire, Relaxed, Release},
    },
};

use slab::Slab;
use tokio::sync::Notify;

use super::state::ScopeState;
use crate::{
    clock::Instant,
    drain::{Counts, DrainSource, OutcomeCounts, Scan, report::UnfinishedCallback},
    sync::{Mutex, MutexGuard, lock},
};

/// The number of shards of a layer.
static SHARDS: LazyLock<usize> = LazyLock::new(|| {
    // Models have time for two.
    if cfg!(axum_defer_loom) {
        return 2;
    }
    let threads = std::thread::available_parallelism().map_or(8, usize::from);
    threads.next_power_of_two().min(256)
});

/// The number of scopes that one step of a snapshot reads.
const SCOPES_PER_STEP: usize = 64;

/// All scopes of a layer and its clones that have callbacks.
pub(crate) struct Store {
    shards: Box<[Shard]>,
    /// Notified when a shard has become idle that a drain waits for.
    idle: Notify,
    /// Handles that may request snapshots and reports.
    handles: AtomicUsize,
}

/// Aligned to avoid false sharing.
#[derive(Default)]
#[repr(align(128))]
struct Shard(Mutex<ShardState>);

#[derive(Default)]
pub(super) struct ShardState {
    pub(super) scopes: Slab<Box<ScopeState>>,
    pub(super) counts: Counts,
    /// Callbacks that were ever registered. An unchanged sum shows that nothing was registered in
    /// between.
    pub(super) registered: u64,
    pub(super) outcomes: OutcomeCounts,
    /// A drain waits until the shard is idle.
    watched: bool,
}

/// The end of a callback, for the counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Disposition {
    Succeeded,
    Failed,
    Skipped,
    Lost,
    /// Cancelled, replaced, or deduplicated, as the app requested.
    Withdrawn,
}

impl Default for Store {
    fn default() -> Self {
        Self::with_shards(*SHARDS)
    }
}

impl Store {
    /// Creates a store for a scope that has no layer.
    pub(crate) fn for_one_scope() -> Self {
        Self::with_shards(1)
    }

    fn with_shards(shards: usize) -> Self {
        Self {
            shards: (0..shards).map(|_| Shard::default()).collect(),
            idle: Notify::new(),
            handles: AtomicUsize::new(0),
        }
    }

    /// Returns the shard of the calling thread.
    #[inline]
    pub(super) fn shard_of_this_thread(&self) -> u32 {
        static THREADS: AtomicUsize = AtomicUsize::new(0);
        thread_local! {
            static NUMBER: usize = THREADS.fetch_add(1, Relaxed);
        }
        // A thread that is about to end has no number anymore.
        let number = NUMBER.try_with(|number| *number).unwrap_or_default();
        // There is at least one shard, and at most 256.
        (number % self.shards.len()) as u32
    }

    #[inline]
    pub(super) fn lock(&self, shard: u32) -> MutexGuard<'_, ShardState> {
        lock(&self.shards[shard as usize].0)
    }

    /// Wakes the drains that wait for this store.
    pub(super) fn notify_idle(&self) {
        self.idle.notify_waiters();
    }

    /// Counts a handler that a drain must wait for, until [`Store::handler_ended`].
    pub(crate) fn handler_started(&self) -> u32 {
        let shard = self.shard_of_this_thread();
        self.handler_started_in(shard);
        shard
    }

    pub(crate) fn handler_started_in(&self, shard: u32) {
        let mut shard = self.lock(shard);
        shard.counts.handlers += 1;
        shard.registered += 1;
    }

    pub(crate) fn handler_ended(&self, shard: u32) {
        let is_idle = {
            let mut shard = self.lock(shard);
            shard.counts.handlers -= 1;
            shard.take_idle()
        };
        if is_idle {
            self.notify_idle();
        }
    }

    pub(crate) fn handle_created(&self) {
        self.handles.fetch_add(1, Release);
    }

    pub(crate) fn handle_dropped(&self) {
        self.handles.fetch_sub(1, Release);
    }

    /// Returns `true` if a handle may ask to which request a callback belongs.
    #[inline]
    pub(crate) fn has_handle(&self) -> bool {
        self.handles.load(Acquire) > 0
    }
}

impl DrainSource for Store {
    /// Counts the unfinished work at one moment: all shards are locked together.
    fn counts(&self) -> Counts {
        let shards: Vec<_> = self.shards.iter().map(|shard| lock(&shard.0)).collect();
        let mut sum = Counts::default();
        for shard in &shards {
            sum.pending += shard.counts.pending;
            sum.running += shard.counts.running;
            sum.handlers += shard.counts.handlers;
        }
        sum
    }

    fn outcomes(&self) -> OutcomeCounts {
        let mut sum = OutcomeCounts::default();
        for shard in &self.shards {
            let outcomes = lock(&shard.0).outcomes;
            sum.succeeded += outcomes.succeeded;
            sum.failed += outcomes.failed;
            sum.skipped += outcomes.skipped;
            sum.lost += outcomes.lost;
        }
        sum
    }

    /// Reads one shard after the other. A shard that has unfinished work notifies
    /// [`Store::idle`] when that has ended.
    fn scan(&self) -> Scan {
        let mut scan = Scan::default();
        for shard in &self.shards {
            let mut shard = lock(&shard.0);
            let unfinished = shard.counts.unfinished();
            shard.watched |= unfinished > 0;
            scan.unfinished += unfinished;
            scan.registered += shard.registered;
        }
        scan
    }

    /// Lists unfinished callbacks. Exact for each scope, but scopes are read one after the other, so
    /// that no lock is held for long.
    fn snapshot(&self) -> Vec<UnfinishedCallback> {
        let now = Instant::now();
        let mut callbacks = Vec::new();
        for shard in &self.shards {
            let mut next = 0;
            loop {
                let shard = lock(&shard.0);
                let end = shard.scopes.capacity().min(next + SCOPES_PER_STEP);
                for key in next..end {
                    if let Some(entry) = shard.scopes.get(key) {
                        callbacks.extend(entry.unfinished(now));
                    }
                }
                if end == shard.scopes.capacity() {
                    break;
                }
                next = end;
            }
        }
        callbacks
    }

    fn idle(&self) -> &Notify {
        &self.idle
    }
}

impl ShardState {
    /// Returns `true` once if everything has ended that a drain waits for.
    #[inline]
    pub(super) fn take_idle(&mut self) -> bool {
        self.watched && self.counts.unfinished() == 0 && std::mem::take(&mut self.watched)
    }

    pub(super) fn remove(&mut self, key: usize) -> Option<Box<ScopeState>> {
        let entry = self.scopes.try_remove(key);
        if self.scopes.is_empty() && self.scopes.capacity() > SCOPES_PER_STEP {
            self.scopes.shrink_to_fit();
        }
        entry
    }
}

impl Disposition {
    #[inline]
    pub(super) fn count(self, outcomes: &mut OutcomeCounts) {
        match self {
            Self::Succeeded => outcomes.succeeded += 1,
            Self::Failed => outcomes.failed += 1,
            Self::Skipped => outcomes.skipped += 1,
            Self::Lost => outcomes.lost += 1,
            Self::Withdrawn => {}
        }
    }
}

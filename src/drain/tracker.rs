//! Counts what is pending and running in all scopes of a layer, and waits for it.

use std::sync::{
    Arc, Weak,
    atomic::{
        AtomicBool, AtomicUsize,
        Ordering::{Relaxed, SeqCst},
    },
};

use tokio::sync::Notify;

use super::{
    report::UnfinishedCallback,
    shard::{Over, Shard, Unfinished},
    shard_number::{SHARDS, ShardNumber},
    tally::{End, Tally},
};
use crate::sync;

/// What is known of all scopes of a layer and its clones.
///
/// Counted in shards: threads that serve requests at the same time rarely meet in one.
#[derive(Default)]
pub(crate) struct Tracker {
    shards: [Shard; SHARDS],
    /// Requests that were admitted under `max_pending` and have deferred nothing yet.
    reserved: AtomicUsize,
    /// Those who can ask what is unfinished.
    askers: AtomicUsize,
    /// Somebody had a handle, so that what is unfinished is wanted with its request.
    is_watched: AtomicBool,
    idle: Notify,
    /// Those who wait for `idle`, so that the last callback need not call into the void.
    waiting_for_idle: sync::AtomicU64,
    /// Wakes requests that wait because of `max_pending`.
    room: Arc<Notify>,
    /// Some request has come upon `max_pending`.
    has_limit: AtomicBool,
}

impl Tracker {
    #[inline]
    fn shard(&self, shard: ShardNumber) -> &Shard {
        shard.of(&self.shards)
    }

    #[inline]
    pub(crate) fn registered(&self, shard: ShardNumber) {
        self.shard(shard).register();
        #[cfg(feature = "metrics")]
        crate::observe::meter::pending(1.0);
    }

    /// A callback starts; it may follow one that ran in the same place before.
    #[inline]
    pub(crate) fn started(&self, shard: ShardNumber, follows: bool) {
        if !follows {
            self.shard(shard).run();
        }
        #[cfg(feature = "metrics")]
        {
            crate::observe::meter::pending(-1.0);
            crate::observe::meter::running(1.0);
        }
    }

    /// A callback that had started is over; where `runs_no_more`, none follows it in its place.
    #[inline]
    pub(crate) fn ended(&self, shard: ShardNumber, end: End, runs_no_more: bool) {
        #[cfg(feature = "metrics")]
        crate::observe::meter::running(-1.0);
        self.over(shard, end, runs_no_more);
    }

    /// A callback that had not started never will; it may have been in the place of one that had.
    #[inline]
    pub(crate) fn dropped(&self, shard: ShardNumber, end: End, runs_no_more: bool) {
        #[cfg(feature = "metrics")]
        crate::observe::meter::pending(-1.0);
        self.over(shard, end, runs_no_more);
    }

    #[inline]
    fn over(&self, shard: ShardNumber, end: End, runs_no_more: bool) {
        let shard = self.shard(shard);
        shard.count(end);
        shard.end(runs_no_more);
        self.released();
    }

    /// Keeps the tracker from being idle until [`Tracker::let_go`].
    pub(crate) fn hold(&self, shard: ShardNumber) {
        self.shard(shard).hold();
    }

    pub(crate) fn let_go(&self, shard: ShardNumber) {
        self.shard(shard).let_go();
        self.released();
    }

    #[inline]
    fn released(&self) {
        // Whoever waits says so first and looks at the shards then; here it is the other way
        // round. So either they see the change, or it is seen here that they wait.
        if self.waiting_for_idle.load(SeqCst) > 0 || self.has_limit.load(SeqCst) {
            self.tell_those_who_wait();
        }
    }

    fn tell_those_who_wait(&self) {
        let is_idle = self.is_idle();
        if is_idle {
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

    /// Of each shard, what is left and how it counts; what is over is read first, in all of them.
    fn left(&self, left: impl Fn(&Shard, &Over) -> usize) -> usize {
        let over = self.shards.each_ref().map(Shard::over);
        let shards = self.shards.iter().zip(&over);
        shards.map(|(shard, over)| left(shard, over)).sum()
    }

    pub(crate) fn is_idle(&self) -> bool {
        let left =
            |shard: &Shard, over: &Over| shard.callbacks_beyond(over) + shard.requests_beyond(over);
        self.left(left) == 0
    }

    /// Callbacks that are registered or running.
    pub(crate) fn callbacks(&self) -> usize {
        self.left(Shard::callbacks_beyond)
    }

    /// Callbacks that are registered and not running.
    pub(crate) fn pending(&self) -> usize {
        self.left(|shard, over| shard.callbacks_beyond(over).saturating_sub(over.running()))
    }

    pub(crate) fn running(&self) -> usize {
        self.left(|_, over| over.running())
    }

    /// Handlers that are run to completion.
    pub(crate) fn held(&self) -> usize {
        self.left(Shard::requests_beyond)
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

    pub(super) fn asker_comes(&self) {
        self.askers.fetch_add(1, Relaxed);
    }

    pub(super) fn asker_goes(&self) {
        self.askers.fetch_sub(1, Relaxed);
    }

    /// Whether anybody can ask what is unfinished.
    #[inline]
    pub(crate) fn can_be_asked(&self) -> bool {
        self.askers.load(Relaxed) > 0
    }

    pub(crate) fn watch(&self) {
        self.is_watched.store(true, SeqCst);
    }

    #[inline]
    pub(crate) fn is_watched(&self) -> bool {
        self.is_watched.load(Relaxed)
    }

    /// Is told of every callback that ends after this was called.
    pub(crate) fn room(&self) -> &Arc<Notify> {
        if !self.has_limit.load(SeqCst) {
            self.has_limit.store(true, SeqCst);
        }
        &self.room
    }

    /// Lists a scope until [`Tracker::delist`] with the key that this returns.
    pub(crate) fn list(&self, shard: ShardNumber, scope: Weak<dyn Unfinished>) -> usize {
        self.shard(shard).list(scope)
    }

    pub(crate) fn delist(&self, shard: ShardNumber, key: usize) {
        self.shard(shard).delist(key);
    }

    pub(super) fn unfinished(&self) -> Vec<UnfinishedCallback> {
        self.shards
            .iter()
            .flat_map(Shard::listed)
            .filter_map(|scope| scope.upgrade())
            .flat_map(|scope| scope.unfinished())
            .collect()
    }

    pub(crate) async fn wait_idle(&self) {
        let _waiting = Waiting::new(&self.waiting_for_idle);
        loop {
            let mut idle = std::pin::pin!(self.idle.notified());
            // From here on a notification is kept, so none falls between the look and the wait.
            idle.as_mut().enable();
            if self.is_idle() {
                return;
            }
            idle.await;
        }
    }

    pub(super) fn tally(&self) -> Tally {
        let mut all = Tally::default();
        for shard in &self.shards {
            let Tally {
                ran,
                failed,
                skipped,
                lost,
            } = shard.tally();
            all.ran += ran;
            all.failed += failed;
            all.skipped += skipped;
            all.lost += lost;
        }
        all
    }
}

/// Counts somebody who waits.
struct Waiting<'a>(&'a sync::AtomicU64);

impl<'a> Waiting<'a> {
    fn new(count: &'a sync::AtomicU64) -> Self {
        count.fetch_add(1, SeqCst);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    struct Nothing;

    impl Unfinished for Nothing {
        fn unfinished(&self) -> Vec<UnfinishedCallback> {
            Vec::new()
        }
    }

    fn listed(tracker: &Tracker) -> usize {
        tracker.shards.iter().flat_map(Shard::listed).count()
    }

    #[test]
    fn what_was_listed_by_any_thread_is_there_until_any_other_takes_it_out() {
        let tracker = Arc::new(Tracker::default());
        let keys: Vec<_> = (0..2 * SHARDS)
            .flat_map(|_| {
                let tracker = tracker.clone();
                let lists = move || {
                    let shard = ShardNumber::of_this_thread();
                    let scope: Weak<dyn Unfinished> = Weak::<Nothing>::new();
                    [scope.clone(), scope].map(|scope| (shard, tracker.list(shard, scope)))
                };
                thread::spawn(lists).join().unwrap()
            })
            .collect();
        assert_eq!(listed(&tracker), 4 * SHARDS);
        for (taken, (shard, key)) in keys.into_iter().enumerate() {
            assert_eq!(listed(&tracker), 4 * SHARDS - taken);
            tracker.delist(shard, key);
        }
        assert_eq!(listed(&tracker), 0);
    }
}

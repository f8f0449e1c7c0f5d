//! Limits how many callbacks are pending or running, for `DeferLayer::max_pending`.
//!
//! A request needs a permit to enter. It keeps the permit until it defers something or its response
//! has ended; each callback counts until it has ended. A freed permit wakes one waiter. A waiter that
//! was woken may never be polled again (`load_shed` drops it, or keeps it for its next request), so a
//! task then wakes the next one until the free permits are taken or no waiter is left.

use std::{
    collections::VecDeque,
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::AcqRel},
    },
    task::{Context, Poll, Waker},
};

use super::spawn::spawn;
use crate::sync::{Mutex, lock};

pub(crate) struct PermitPool {
    limit: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Permits of requests, and callbacks that are not finished.
    used: usize,
    /// Waiters that were not woken yet, in the order of arrival.
    waiters: VecDeque<Waiter>,
    next_id: u64,
    /// A task wakes the waiters, as long as permits are free.
    is_waking: bool,
}

struct Waiter {
    id: u64,
    waker: Waker,
}

/// The right of one request to enter.
pub(crate) struct Permit {
    pool: Arc<PermitPool>,
    released: AtomicBool,
}

/// A position in the queue for a permit, for one clone of the service.
#[derive(Default)]
pub(crate) struct Waiting(Option<(Arc<PermitPool>, u64)>);

impl PermitPool {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            limit,
            state: Mutex::default(),
        }
    }

    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    /// Takes a permit, or registers the waker of the calling task.
    pub(crate) fn poll_permit(
        self: &Arc<Self>,
        waiting: &mut Waiting,
        cx: &Context<'_>,
    ) -> Poll<Permit> {
        // Wakers are user code: cloned before the lock, dropped after it.
        let waker = cx.waker().clone();
        let mut state = lock(&self.state);
        if state.used < self.limit {
            state.used += 1;
            drop(state);
            waiting.leave();
            return Poll::Ready(Permit {
                pool: self.clone(),
                released: AtomicBool::new(false),
            });
        }
        let id = waiting.0.as_ref().map(|(_, id)| *id);
        let previous = match id.and_then(|id| state.index_of(id)) {
            Some(index) => Some(std::mem::replace(&mut state.waiters[index].waker, waker)),
            None => {
                let id = state.next_id;
                state.next_id += 1;
                state.waiters.push_back(Waiter { id, waker });
                waiting.0 = Some((self.clone(), id));
                None
            }
        };
        drop(state);
        drop(previous);
        Poll::Pending
    }

    /// Counts a callback. It is never refused.
    pub(crate) fn registered(&self) {
        lock(&self.state).used += 1;
    }

    /// Counts callbacks that have ended, or a permit that is no longer needed. Returns `true` if
    /// the caller must run [`PermitPool::wake_waiters`].
    #[must_use]
    pub(crate) fn ended(&self, count: usize) -> bool {
        let mut state = lock(&self.state);
        state.used -= count;
        let wakes = state.used < self.limit && !state.waiters.is_empty();
        wakes && !std::mem::replace(&mut state.is_waking, true)
    }

    /// Wakes one waiter after the other, until no permit is free or no waiter is left. Lets other
    /// tasks run in between, so that a waiter that was woken can take the permit.
    pub(crate) async fn wake_waiters(self: Arc<Self>) {
        let unfinished = WakeAll(&self);
        // Waiters on other threads need longer, so the pauses grow.
        let mut pause = 2;
        while let Some(waker) = self.next_waker() {
            waker.wake();
            for _ in 0..pause {
                yield_once().await;
            }
            pause = 64.min(2 * pause);
        }
        std::mem::forget(unfinished);
    }

    fn next_waker(&self) -> Option<Waker> {
        let mut state = lock(&self.state);
        let waiter = match state.used < self.limit {
            true => state.waiters.pop_front(),
            false => None,
        };
        state.is_waking = waiter.is_some();
        Some(waiter?.waker)
    }

    fn leave(&self, id: u64) {
        let mut state = lock(&self.state);
        let index = state.index_of(id);
        let removed = index.and_then(|index| state.waiters.remove(index));
        drop(state);
        drop(removed);
    }
}

impl State {
    fn index_of(&self, id: u64) -> Option<usize> {
        self.waiters
            .binary_search_by_key(&id, |waiter| waiter.id)
            .ok()
    }
}

/// A guard that wakes all waiters if the task that wakes them is dropped, because its runtime shuts
/// down.
struct WakeAll<'a>(&'a Arc<PermitPool>);

impl Drop for WakeAll<'_> {
    fn drop(&mut self) {
        let waiters = {
            let mut state = lock(&self.0.state);
            state.is_waking = false;
            std::mem::take(&mut state.waiters)
        };
        for waiter in waiters {
            waiter.waker.wake();
        }
    }
}

impl Permit {
    /// Releases the permit, once. Returns the pool if its waiters must be woken.
    #[must_use]
    pub(crate) fn release(&self) -> Option<Arc<PermitPool>> {
        let first = !self.released.swap(true, AcqRel);
        (first && self.pool.ended(1)).then(|| self.pool.clone())
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(pool) = self.release() {
            spawn(None, None, pool.wake_waiters());
        }
    }
}

impl Waiting {
    fn leave(&mut self) {
        if let Some((pool, id)) = self.0.take() {
            pool.leave(id);
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.leave();
    }
}

async fn yield_once() {
    let mut has_yielded = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut has_yielded, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

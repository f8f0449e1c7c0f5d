//! Scopes: the lifetime of one request or other unit of work, and the callbacks deferred in it.
//!
//! [`Scope`] is the handle. Its callbacks are in the [`store`], and each method below is one step
//! there. No user code runs under its lock: values that were taken out are reported and dropped
//! after the step.

use std::{
    sync::{Arc, atomic::fence},
    task::Waker,
};

use tokio::runtime::Handle;
use tokio_util::sync::{CancellationToken, DropGuard};

use self::{
    max_pending::Permit,
    names::Holder,
    options::Options,
    queue::Taken,
    state::{ScopeState, Start},
    store::{Disposition, ShardState},
};
use crate::{
    callback::entry::BoxEntry,
    clock::Instant,
    completion::Completion,
    drain::Counts,
    observe::{
        callback_info::Phase,
        dispatch::Interest,
        scope_info::{RequestInfo, ScopeInfo},
    },
    sent::response::ResponseHandle,
    sync::{AtomicBool, AtomicU64, MutexGuard, Ordering},
};

pub(crate) mod current;
mod edit;
pub(crate) mod max_pending;
pub(crate) mod names;
pub(crate) mod options;
pub(crate) mod queue;
mod report;
pub(crate) mod spawn;
pub(crate) mod state;
pub(crate) mod store;

/// The key of a scope that has no entry in the store.
const NO_ENTRY: u64 = u64::MAX;

/// A request or other unit of work.
pub(crate) struct Scope {
    pub(crate) options: Arc<Options>,
    pub(crate) opened: Instant,
    /// The response that this scope waits for, if the connection reports flushes.
    pub(crate) response: Option<ResponseHandle>,
    /// `Some` if an observer, a handle, or a subscriber needs request details.
    pub(crate) info: Option<Arc<ScopeInfo>>,
    pub(crate) extra: Option<Box<Extra>>,
    /// Changes under the lock of the shard, or while this is the only reference to the scope.
    key: AtomicU64,
    shard: u32,
    pub(crate) interest: Interest,
    /// Nothing can be registered before the response anymore. Changes as `key` does.
    head_released: AtomicBool,
}

/// Fields that most scopes do not have.
#[derive(Default)]
pub(crate) struct Extra {
    /// The code that waits for this scope, if it belongs to a scope itself.
    pub(crate) parent: Option<Current>,
    /// Cancelled when the client disconnects, if the handler is run to completion.
    pub(crate) client_gone: Option<CancellationToken>,
    /// The permit of the request under `max_pending`.
    permit: Option<Permit>,
    /// Cancels a token when the scope is dropped: nothing can run in it anymore.
    closed: Option<(CancellationToken, DropGuard)>,
}

/// A callback as its handle knows it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Registration {
    pub(crate) phase: Phase,
    /// Its number within the phase.
    pub(crate) id: u64,
}

/// A callback that has ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ended {
    pub(crate) registration: Registration,
    pub(crate) disposition: Disposition,
}

/// The continuation of a runner after a callback.
pub(crate) enum Then {
    /// Take the next callback, or end the runner.
    Take,
    /// Take the next callback, or wait for one while others run.
    TakeOrWait(Waker),
    /// Take the next callback before the response, or release its head.
    TakeBefore,
    /// Take nothing.
    Leave,
}

/// A scope, and the relation of the running code to it.
#[derive(Clone)]
pub(crate) struct Current {
    pub(crate) scope: Arc<Scope>,
    pub(crate) role: Role,
}

/// The relation of code to its scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// The scope polls this code: the handler, or the body. The runner is not active.
    Polled,
    /// The runner polls this code: the callback with this number.
    Callback(u64),
    /// The runner may be active at the same time.
    External,
}

impl Current {
    #[inline]
    pub(crate) fn polled(scope: Arc<Scope>) -> Self {
        Self {
            scope,
            role: Role::Polled,
        }
    }

    pub(crate) fn external(scope: Arc<Scope>) -> Self {
        Self {
            scope,
            role: Role::External,
        }
    }

    /// Returns the callback that is running, if this is one.
    pub(crate) fn holder(&self) -> Option<Holder> {
        match self.role {
            Role::Callback(callback) => Some(self.scope.holder(callback)),
            Role::Polled | Role::External => None,
        }
    }
}

impl Scope {
    pub(crate) fn open(
        options: Arc<Options>,
        response: Option<ResponseHandle>,
        request: impl FnOnce() -> Option<RequestInfo>,
        permit: Option<Permit>,
        parent: Option<Current>,
    ) -> Arc<Self> {
        let opened = Instant::now();
        let interest = options.observers.interest(options.store.has_handle());
        let info = interest
            .scope
            .then(|| Arc::new(ScopeInfo::new(opened, request())));
        let has_extra = options.to_completion
            || options.wait_until.is_some()
            || permit.is_some()
            || parent.is_some();
        let extra = has_extra.then(|| {
            Box::new(Extra {
                parent,
                client_gone: options.to_completion.then(CancellationToken::new),
                permit,
                closed: options.wait_until.as_ref().map(|_| {
                    let token = CancellationToken::new();
                    (token.clone(), token.drop_guard())
                }),
            })
        });
        Arc::new(Self {
            shard: options.store.shard_of_this_thread(),
            options,
            opened,
            response,
            info,
            extra,
            key: AtomicU64::new(NO_ENTRY),
            interest,
            head_released: AtomicBool::new(false),
        })
    }

    /// Returns `true` if this is the only reference, so nothing can be registered concurrently.
    #[inline]
    fn is_exclusive(self: &Arc<Self>) -> bool {
        let is_exclusive = Arc::strong_count(self) == 1;
        // Makes visible what other threads did before they dropped theirs.
        fence(Ordering::Acquire);
        is_exclusive
    }

    #[inline]
    fn has_entry(&self) -> bool {
        self.key.load(Ordering::Relaxed) != NO_ENTRY
    }

    /// Returns the key of the entry, or one that no entry has.
    #[inline]
    fn key(&self) -> usize {
        self.key.load(Ordering::Relaxed) as usize
    }

    /// Returns `true` if nothing was registered, and nothing can be.
    #[inline]
    pub(crate) fn is_unused(self: &Arc<Self>) -> bool {
        // In this order: a registration on another thread comes before the drop of its reference.
        self.is_exclusive() && !self.has_entry()
    }

    /// Records that the head of the response is known, or that there will be none.
    #[inline]
    pub(crate) fn head_ready(self: &Arc<Self>) {
        if let Some(info) = &self.info {
            if self.interest.observers {
                let _ = info.time_to_head.set(self.opened.elapsed());
            }
        }
        if let Some(response) = &self.response {
            // Another reference may still register a callback while the response is sent.
            if Arc::strong_count(self) > 1 {
                response.watch();
            }
        }
    }

    /// Registers a callback. A held callback does not run before
    /// [`handle_dropped`](Self::handle_dropped).
    ///
    /// Returns the callback as an error if it should run before the response and the head is
    /// released.
    pub(crate) fn push(
        self: &Arc<Self>,
        entry: BoxEntry,
        held: bool,
    ) -> Result<(Registration, Option<Start>), BoxEntry> {
        let phase = entry.header.phase;
        if !self.has_entry() {
            if let Some(response) = &self.response {
                response.watch();
            }
        }
        let mut shard = self.lock();
        if phase == Phase::Before && self.head_released.load(Ordering::Relaxed) {
            drop(shard);
            return Err(entry);
        }
        if let Some(pool) = &self.options.max_pending {
            pool.registered();
        }
        let shard_state = &mut *shard;
        let key = self.entry_key(shard_state);
        let state = &mut shard_state.scopes[key];
        shard_state.registered += 1;
        shard_state.counts.pending += 1;
        state.remember_runtime();
        let id = state.queue_mut(phase).push(entry, held);
        let ready = state.start_if_ready(&mut shard_state.counts, self.hands_over(), || self.now());
        drop(shard);
        if let Some(waker) = ready.waker {
            waker.wake();
        }
        #[cfg(feature = "metrics")]
        crate::observe::metrics::pending(1.0);
        self.release_permit();
        Ok((Registration { phase, id }, ready.start))
    }

    /// Decides the scope. The caller owns the right to do it, and spawns the runner.
    pub(crate) fn decide(self: &Arc<Self>, completion: Completion) -> Option<Start> {
        if let (true, Some(info)) = (self.interest.observers, &self.info) {
            // Before the step, because callbacks may start right after it.
            self.options.observers.completed(info, &completion);
        }
        let elapsed = completion.elapsed();
        let now = || self.interest.handle.then(|| self.opened + elapsed);
        let mut shard = self.lock();
        let shard_state = &mut *shard;
        let key = self.entry_key(shard_state);
        let state = &mut shard_state.scopes[key];
        state.remember_runtime();
        state.decide(completion);
        let ready = state.start_if_ready(&mut shard_state.counts, self.hands_over(), now);
        drop(shard);
        self.release_permit();
        ready.start
    }

    /// Counts the end of a callback, and takes the next one for the runner.
    ///
    /// If the runner ends and holds the only reference to the scope, the entry leaves the store.
    #[inline]
    pub(crate) fn advance(self: &Arc<Self>, ended: Option<Ended>, then: Then) -> Option<Taken> {
        let mut shard = self.lock();
        let shard_state = &mut *shard;
        let key = self.key();
        let state = shard_state.scopes.get_mut(key)?;
        let counts = &mut shard_state.counts;
        if let Some(Ended {
            registration: Registration { phase, id },
            disposition,
        }) = ended
        {
            state.end(id, phase, counts);
            disposition.count(&mut shard_state.outcomes);
        }
        let mut dropped_waker = None;
        let (next, ends) = match then {
            Then::Leave => (None, false),
            Then::TakeBefore => {
                let next = state.take(Phase::Before, counts, || self.now());
                if next.is_none() {
                    self.head_released.store(true, Ordering::Relaxed);
                }
                (next, false)
            }
            Then::Take | Then::TakeOrWait(_) => {
                let next = state.take(Phase::After, counts, || self.now());
                let waits = match then {
                    Then::TakeOrWait(waker) => Some(waker),
                    _ => None,
                };
                let ends = next.is_none() && waits.is_none();
                match next {
                    None => dropped_waker = state.set_runner(waits),
                    Some(_) => dropped_waker = waits,
                }
                (next, ends)
            }
        };
        let mut removed = None;
        if ends {
            if Arc::strong_count(self) == 1 {
                removed = shard_state.remove(key);
                self.key.store(NO_ENTRY, Ordering::Relaxed);
            } else {
                state.remember_runtime();
            }
        }
        let is_idle = shard_state.take_idle();
        drop(shard);
        drop((removed, dropped_waker));
        if ended.is_some() {
            self.callback_ended(1);
        }
        if is_idle {
            self.options.store.notify_idle();
        }
        next
    }

    /// Returns `true` if a callback may be taken. Otherwise `waker` is woken by the next one.
    pub(crate) fn has_ready_or_wait(&self, waker: Waker) -> bool {
        let (has_ready, dropped) = self
            .with_entry(|state, _| match state.has_ready() {
                true => (true, Some(waker)),
                false => (false, state.set_runner(Some(waker))),
            })
            .unwrap_or_default();
        drop(dropped);
        has_ready
    }

    /// Counts a callback as pending while it waits for its name in another scope.
    pub(crate) fn set_waiting(&self, id: u64, waits: bool) {
        let now = self.now();
        self.with_entry(|state, counts| state.set_waiting(id, waits, counts, now));
    }

    /// Releases the head of the response. Returns `true` if callbacks must run before it.
    #[inline]
    pub(crate) fn release_head(self: &Arc<Self>) -> bool {
        if self.is_unused() {
            self.head_released.store(true, Ordering::Relaxed);
            return false;
        }
        let shard = self.lock();
        if self.head_released.load(Ordering::Relaxed) {
            return false;
        }
        let entry = shard.scopes.get(self.key());
        let waits = entry.is_some_and(|entry| entry.has_before());
        if !waits {
            self.head_released.store(true, Ordering::Relaxed);
        }
        waits
    }

    /// Begins the phase before the response.
    pub(crate) fn begin_before(&self, completion: Completion) {
        self.with_entry(|state, _| state.begin_before(completion));
    }

    /// Returns the completion that the callbacks of a phase receive, once the phase has begun.
    pub(crate) fn completion_in(&self, phase: Phase) -> Option<Completion> {
        self.with_entry(|state, _| state.completion(phase))?
    }

    pub(crate) fn runtime(&self) -> Option<Handle> {
        self.with_entry(|state, _| state.runtime())?
    }

    /// Stores the runtime for a runner that may move to a task.
    pub(crate) fn keep_runtime(&self, runtime: Option<Handle>) {
        let previous = self.with_entry(|state, _| state.set_runtime(runtime));
        drop(previous);
    }

    /// Returns a callback of this scope as the holder of a name.
    pub(crate) fn holder(self: &Arc<Self>, callback: u64) -> Holder {
        Holder {
            scope: Arc::as_ptr(self) as usize,
            callback,
        }
    }

    /// Returns the code that waits for this scope, from the inside to the outside.
    pub(crate) fn ancestors(&self) -> impl Iterator<Item = &Current> {
        std::iter::successors(self.parent(), |current| current.scope.parent())
    }

    fn parent(&self) -> Option<&Current> {
        self.extra.as_ref()?.parent.as_ref()
    }

    pub(crate) fn client_gone(&self) -> Option<&CancellationToken> {
        self.extra.as_ref()?.client_gone.as_ref()
    }

    /// Returns a token that is cancelled when the scope is closed.
    pub(crate) fn closed(&self) -> Option<CancellationToken> {
        let (token, _) = self.extra.as_ref()?.closed.as_ref()?;
        Some(token.clone())
    }

    #[inline]
    fn now(&self) -> Option<Instant> {
        self.interest.handle.then(Instant::now)
    }

    /// Returns `true` if a runner receives its first callback when it starts.
    fn hands_over(&self) -> bool {
        self.options.permits.is_none()
    }

    #[inline]
    fn lock(&self) -> MutexGuard<'_, ShardState> {
        self.options.store.lock(self.shard)
    }

    /// Returns the key of the scope's entry, which is created if there is none.
    #[inline]
    fn entry_key(&self, shard: &mut ShardState) -> usize {
        if !self.has_entry() {
            let key = shard.scopes.insert(ScopeState::new(self.info.clone()));
            self.key.store(key as u64, Ordering::Relaxed);
        }
        self.key()
    }

    /// Runs one step, if the scope has an entry.
    fn with_entry<T>(&self, step: impl FnOnce(&mut ScopeState, &mut Counts) -> T) -> Option<T> {
        let mut shard = self.lock();
        let shard = &mut *shard;
        let key = self.key();
        let entry = shard.scopes.get_mut(key)?;
        Some(step(entry, &mut shard.counts))
    }

    /// Releases the permit of the request, because a callback counts instead or the response has ended.
    fn release_permit(&self) {
        let permit = self.extra.as_ref().and_then(|extra| extra.permit.as_ref());
        if let Some(pool) = permit.and_then(Permit::release) {
            spawn::spawn(self.options.spawn.as_ref(), None, pool.wake_waiters());
        }
    }

    /// Lets waiting requests enter after callbacks have ended.
    fn callback_ended(&self, callbacks: usize) {
        if let Some(pool) = &self.options.max_pending {
            if pool.ended(callbacks) {
                let waking = pool.clone().wake_waiters();
                spawn::spawn(self.options.spawn.as_ref(), None, waking);
            }
        }
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        if self.has_entry() {
            let key = self.key();
            let removed = self.lock().remove(key);
            // The runner has emptied it: a scope is decided before it is dropped.
            drop(removed);
        }
    }
}

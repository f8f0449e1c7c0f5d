//! The scope of one unit of work: what was deferred in it, and the steps in which that is run.
//!
//! Everything that can happen to a scope from several threads at once (a push, a decision, a
//! cancellation, the runner that looks for more) is one short critical section: one step of the
//! state machine in [`state`]. No user code runs under the lock: callbacks that were taken out are
//! returned, and told of and dropped after it.

use std::{
    sync::{Arc, PoisonError, atomic::fence},
    task::Context,
};

use tokio::runtime::Handle;

use self::{
    client::Client,
    head::Head,
    idle::Idle,
    options::Options,
    queue::Queue,
    state::{LazyState, Pushed, Registration, Start, State},
};
use crate::{
    callback::entry::BoxEntry,
    clock::Instant,
    completion::Completion,
    drain::{reservation::Reservation, tally::End},
    isolate::drop_isolated,
    observe::{
        callback_info::CallbackInfo,
        observers::Observers,
        outcome::LostReason,
        phase::Phase,
        scope_info::{RequestInfo, ScopeInfo},
    },
    sent::response::ResponseHandle,
    sync::{AtomicBool, Mutex, Ordering, lock},
};

mod changes;
pub(crate) mod client;
pub(crate) mod current;
mod head;
pub(crate) mod idle;
mod in_progress;
pub(crate) mod options;
mod queue;
pub(crate) mod shared_options;
pub(crate) mod state;
mod told;

pub(crate) struct Scope {
    pub(crate) options: Arc<Options>,
    pub(crate) opened: Instant,
    /// The response that this scope waits for, where the connection reports what was sent.
    pub(crate) response: Option<ResponseHandle>,
    /// Of a request whose handler is run to completion.
    pub(crate) client: Option<Arc<Client>>,
    /// Where somebody is told of it.
    pub(crate) info: Option<Arc<ScopeInfo>>,
    head: Head,
    /// Something was registered.
    is_used: AtomicBool,
    state: Mutex<LazyState>,
    /// Where somebody waits for it. The last one: what callbacks captured goes before.
    pub(crate) idle: Option<Idle>,
}

impl Scope {
    pub(crate) fn open(
        options: Arc<Options>,
        response: Option<ResponseHandle>,
        request: impl FnOnce() -> Option<RequestInfo>,
        reservation: Option<Reservation>,
    ) -> Arc<Self> {
        let opened = Instant::now();
        let info = options
            .hear_scopes()
            .then(|| Arc::new(ScopeInfo::new(opened, request())));
        Arc::new(Self {
            client: options.to_completion.then(Arc::default),
            idle: options.wait_until.as_ref().map(|_| Idle::default()),
            options,
            opened,
            response,
            info,
            head: Head::default(),
            is_used: AtomicBool::new(false),
            state: Mutex::new(LazyState::new(reservation)),
        })
    }

    /// Whether nobody else has a handle with which to register.
    #[inline]
    fn is_alone(self: &Arc<Self>) -> bool {
        // The tracker could get hold of it too, but only looks. What they did who have let go of it
        // is seen after the fence.
        let is_alone = Arc::strong_count(self) == 1;
        fence(Ordering::Acquire);
        is_alone
    }

    /// Whether nothing was ever registered, and nobody else has a handle with which to register.
    #[inline]
    pub(crate) fn is_unused(self: &Arc<Self>) -> bool {
        self.is_alone() && !self.is_used.load(Ordering::Relaxed)
    }

    /// There is the head of a response, or it is known that there will be none.
    #[inline]
    pub(crate) fn answered(&self) {
        if !self.options.observers.hear_registrations() {
            return;
        }
        if let Some(info) = &self.info {
            let _ = info.answered.set(self.opened.elapsed());
        }
    }

    /// Somebody may still register something when the response is on its way: watch it then.
    #[inline]
    pub(crate) fn watch_if_shared(self: &Arc<Self>) {
        if let Some(response) = &self.response {
            if Arc::strong_count(self) > 1 {
                response.watch();
            }
        }
    }

    /// The state, where nobody else has the scope, or could get hold of it: no lock is needed then, and
    /// nothing can be done to its callbacks by anybody else until code runs in it again.
    #[inline]
    fn state_alone(self: &mut Arc<Self>) -> Option<&mut State> {
        // `get_mut` would find out too, at the price of half a lock.
        if Arc::strong_count(self) > 1 || Arc::weak_count(self) > 0 {
            return None;
        }
        let state = Arc::get_mut(self)?.state.get_mut();
        Some(state.unwrap_or_else(PoisonError::into_inner).get())
    }

    /// One step, under the lock. What was taken out is returned, and so dropped after it.
    #[inline]
    fn step<T>(&self, step: impl FnOnce(&mut State) -> T) -> T {
        step(lock(&self.state).get())
    }

    /// Registers a callback. One that is held waits until it is [settled](Self::settled).
    pub(crate) fn push(self: &Arc<Self>, entry: BoxEntry, held: bool) -> (Registration, Start) {
        self.options.tracker.registered(self.options.shard);
        self.watch_from_now();
        let (id, pushed) = self.step(|state| {
            let id = state.queue.push(entry);
            if held {
                state.queue.hold(id);
            }
            (id, self.pushed(state))
        });
        let registration = Registration {
            phase: Phase::After,
            id,
        };
        (registration, pushed.go_on())
    }

    /// Registers a callback of the first phase; `None`, and nothing is registered, when the head
    /// of the response was released before.
    pub(crate) fn push_before(self: &Arc<Self>, entry: BoxEntry) -> Option<Registration> {
        self.watch_from_now();
        let mut entry = Some(entry);
        let pushed = self.step(|state| {
            if !self.head.wait_for() {
                return None;
            }
            self.options.tracker.registered(self.options.shard);
            let id = state.queue_of(Phase::Before).push(entry.take()?);
            Some((id, self.pushed(state)))
        });
        drop_isolated(entry);
        let (id, pushed) = pushed?;
        // It starts no runner: who holds the head back runs it.
        let _ = pushed.go_on();
        Some(Registration {
            phase: Phase::Before,
            id,
        })
    }

    /// Before the first callback is registered: its response is watched, and a server that drains
    /// hears of the layer.
    #[inline]
    fn watch_from_now(&self) {
        if let Some(response) = &self.response {
            if !self.is_used.load(Ordering::Relaxed) {
                response.watch();
            }
        }
    }

    /// Under the lock: what there is to do for something that was registered.
    #[inline]
    fn pushed(self: &Arc<Self>, state: &mut State) -> Pushed {
        state.remember_runtime();
        self.is_used.store(true, Ordering::Relaxed);
        if state.listed.is_none() && self.options.tracker.can_be_asked() {
            let scope: std::sync::Weak<Self> = Arc::downgrade(self);
            state.listed = Some(self.options.tracker.list(self.options.shard, scope));
        }
        state.pushed()
    }

    /// Fires the scope. Decided exactly once; the caller owns the right to do it.
    pub(crate) fn decide(&self, completion: Completion) -> Start {
        self.tell_decided(&completion);
        self.decide_told(completion)
    }

    fn decide_told(&self, completion: Completion) -> Start {
        let (start, _reservation) =
            self.step(|state| (state.decide(completion), state.reservation.take()));
        start
    }

    /// The same for who hands the scope over to its runner: if nobody else has it, the runner gets the
    /// first callback with it, as nobody is left who could withdraw that.
    pub(crate) fn decide_and_hand_over(self: &mut Arc<Self>, completion: Completion) -> Start {
        self.tell_decided(&completion);
        let has_limits = self.options.has_limits();
        let Some(state) = self.state_alone() else {
            return self.decide_told(completion);
        };
        let mut start = state.decide(completion);
        if let Start::Runner { first, .. } = &mut start {
            if !has_limits {
                *first = state.take();
            }
        }
        drop(state.reservation.take());
        start
    }

    fn tell_decided(&self, completion: &Completion) {
        if let Some(info) = &self.info {
            // Before it is: no callback can have started yet.
            self.options.observers.decided(info, completion);
        }
    }

    pub(crate) fn completion(&self) -> Option<Completion> {
        self.step(|state| state.completion())
    }

    /// What the callbacks of a phase are told, once it has begun.
    pub(crate) fn completion_in(&self, phase: Phase) -> Option<Completion> {
        self.step(|state| state.completion_in(phase))
    }

    /// The response may go out, unless something is registered that it has to wait for; whether
    /// there is.
    #[inline]
    pub(crate) fn release_head(self: &Arc<Self>) -> bool {
        if self.is_alone() {
            self.head.release_alone()
        } else {
            self.head.release()
        }
    }

    /// The first phase begins, and this is what its callbacks are told.
    pub(crate) fn before_begins(&self, completion: Completion) {
        self.step(|state| {
            if let Some(before) = &mut state.before {
                before.completion = Some(completion);
            }
        });
    }

    /// The next callback of the first phase; with `None` the head is released.
    pub(crate) fn next_before(&self) -> Option<BoxEntry> {
        self.step(|state| {
            let entry = state.take_before();
            if entry.is_none() {
                self.head.released();
            }
            entry
        })
    }

    /// One of the first phase has failed: those after it are not run.
    pub(crate) fn skip_before(&self, completion: &Completion) {
        while let Some(entry) = self.next_before() {
            self.drop_taken(entry, End::Skipped, |observers, callback| {
                observers.skipped(callback, completion);
            });
        }
    }

    /// Gives up what is left of the first phase: it should have run, and can't.
    pub(crate) fn lose_before(&self, reason: LostReason) {
        while let Some(entry) = self.next_before() {
            self.drop_taken(entry, End::Lost, |observers, callback| {
                observers.lost(callback, reason);
            });
        }
    }

    /// A callback that was taken out to run and will not; its observers are told why.
    fn drop_taken(
        &self,
        entry: BoxEntry,
        end: End,
        tell: impl FnOnce(&Observers, &CallbackInfo<'_>),
    ) {
        self.ended(entry.header.id);
        self.announce(&entry);
        tell(&self.options.observers, &self.info(&entry.header));
        self.options.tracker.dropped(self.options.shard, end, false);
        drop_isolated(entry);
    }

    pub(crate) fn runtime(&self) -> Option<Handle> {
        self.step(|state| state.runtime.clone())
    }

    /// Of a runner that runs in the calling task, and may have to move.
    pub(crate) fn keep_runtime(&self, runtime: Option<Handle>) {
        self.step(|state| state.runtime = runtime);
    }

    /// The next callback for the runner, which is done with the one that is given; with `None` the
    /// runner has been let go, and the next push starts another one.
    pub(crate) fn next(self: &mut Arc<Self>, ended: Option<u64>) -> Option<BoxEntry> {
        match self.state_alone() {
            Some(state) => state.end_and_take(ended),
            None => self.next_beside_pushes(ended),
        }
    }

    /// The same where others have the scope, too.
    pub(crate) fn next_beside_pushes(self: &Arc<Self>, ended: Option<u64>) -> Option<BoxEntry> {
        let (next, listed) = self.step(|state| {
            let next = state.end_and_take(ended);
            if next.is_some() {
                return (next, None);
            }
            if Arc::strong_count(self) > 1 {
                // Whoever registers something later may do so on a thread that has none.
                state.remember_runtime();
            }
            let is_empty = state.is_empty();
            (None, is_empty.then(|| state.listed.take()).flatten())
        });
        if let Some(key) = listed {
            self.options.tracker.delist(self.options.shard, key);
        }
        next
    }

    /// The next callback for a runner that has others going; with `None` it is woken by a push.
    pub(crate) fn next_beside_others(&self, cx: &Context<'_>) -> Option<BoxEntry> {
        self.step(|state| {
            let next = state.take();
            if next.is_none() {
                state.runner = Some(cx.waker().clone());
            }
            next
        })
    }

    pub(crate) fn ended(&self, id: u64) {
        self.step(|state| state.in_progress.remove(id));
    }

    /// Gives up what is registered: it should have run, and can't.
    pub(crate) fn lose_all(self: &mut Arc<Self>, reason: LostReason) {
        while let Some(entry) = self.next(None) {
            self.drop_taken(entry, End::Lost, |observers, callback| {
                observers.lost(callback, reason);
            });
        }
    }

    pub(crate) fn contains(&self, name: &str) -> bool {
        self.step(|state| state.queues().any(|queue| queue.contains(name)))
    }

    pub(crate) fn len(&self) -> usize {
        self.step(|state| state.queues().map(Queue::len).sum())
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.step(|state| {
            let headers = state.queues().flat_map(Queue::headers);
            headers
                .filter_map(|header| header.name.as_deref().map(str::to_owned))
                .collect()
        })
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        // Where every callback was withdrawn, no runner came to tidy up. Nothing else can be left:
        // who decides the scope, and who runs it, holds on to it until then.
        let state = self.state.get_mut();
        let listed = state.unwrap_or_else(PoisonError::into_inner).take_listed();
        if let Some(key) = listed {
            self.options.tracker.delist(self.options.shard, key);
        }
    }
}

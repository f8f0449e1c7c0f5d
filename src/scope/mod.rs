//! The scope of one unit of work: what was deferred in it, and the steps in which that is run.
//!
//! Everything that can happen to a scope from several threads at once (a push, a decision, a
//! cancellation, the runner that looks for more) is one short critical section: one step of the
//! state machine in [`state`]. No user code runs under the lock: callbacks that were taken out are
//! returned, and told of and dropped after it.

use std::{borrow::Cow, sync::Arc, task::Context, time::Duration};

use tokio::{runtime::Handle, time::Instant};

use self::{
    client::Client,
    options::Options,
    queue::Named,
    state::{Start, State},
};
use crate::{
    callback::{
        entry::{BoxEntry, Header, Observed},
        rule::Rule,
    },
    completion::Completion,
    drain::{
        report::UnfinishedCallback,
        reservation::Reservation,
        tracker::{End, Unfinished},
    },
    isolate::drop_isolated,
    observe::{
        callback_info::{self, CallbackInfo},
        observers::Observers,
        outcome::LostReason,
        scope_info::ScopeInfo,
    },
    sent::transmission::Transmission,
    sync::{Mutex, MutexGuard, lock},
};

pub(crate) mod client;
pub(crate) mod current;
mod in_progress;
pub(crate) mod options;
mod queue;
pub(crate) mod state;

pub(crate) struct Scope {
    pub(crate) options: Arc<Options>,
    pub(crate) opened: Instant,
    /// The response that this scope waits for, where the connection reports what was sent.
    pub(crate) transmission: Option<Transmission>,
    /// Of a request whose handler is run to completion.
    pub(crate) client: Option<Arc<Client>>,
    /// Where somebody is told of it.
    pub(crate) info: Option<Arc<ScopeInfo>>,
    state: Mutex<State>,
}

impl Scope {
    pub(crate) fn open(
        options: Arc<Options>,
        transmission: Option<Transmission>,
        info: Option<ScopeInfo>,
        reservation: Option<Reservation>,
    ) -> Arc<Self> {
        Arc::new(Self {
            client: options.to_completion.then(Arc::default),
            options,
            opened: Instant::now(),
            transmission,
            info: info.map(Arc::new),
            state: Mutex::new(State::new(reservation)),
        })
    }

    /// Whether nothing is registered, and nobody else has a handle with which to register.
    pub(crate) fn is_unused(self: &mut Arc<Self>) -> bool {
        Arc::get_mut(self).is_some_and(|scope| {
            let state = scope.state.get_mut();
            state.is_ok_and(|state| state.queue.len() == 0)
        })
    }

    /// Somebody may still register something when the response is on its way: watch it then.
    pub(crate) fn watch_if_shared(self: &Arc<Self>) {
        if let Some(transmission) = &self.transmission {
            if Arc::strong_count(self) > 1 {
                transmission.watch(&self.options.tracker);
            }
        }
    }

    /// Registers a callback. One that is held waits until it is [settled](Self::settled).
    pub(crate) fn push(self: &Arc<Self>, entry: BoxEntry, held: bool) -> (u64, Start) {
        self.options.tracker.registered();
        let mut state = lock(&self.state);
        let id = state.queue.push(entry);
        if held {
            state.queue.hold(id);
        }
        state.remember_runtime();
        let reservation = state.reservation.take();
        let newly_listed = state.listed.is_none();
        if newly_listed {
            let scope: std::sync::Weak<Self> = Arc::downgrade(self);
            state.listed = Some(self.options.tracker.list(scope));
        }
        let start = go_on(state);
        drop(reservation);
        if newly_listed {
            if let Some(transmission) = &self.transmission {
                transmission.watch(&self.options.tracker);
            }
        }
        (id, start)
    }

    /// Fires the scope. Decided exactly once; the caller owns the right to do it.
    pub(crate) fn decide(&self, completion: Completion) -> Start {
        let mut state = lock(&self.state);
        // Whoever registers something from now on may do so on a thread that has none.
        state.remember_runtime();
        let reservation = state.reservation.take();
        let start = state.decide(completion);
        drop(state);
        drop(reservation);
        start
    }

    pub(crate) fn completion(&self) -> Option<Completion> {
        lock(&self.state).completion()
    }

    // The models have no runtime.
    #[cfg_attr(all(test, axum_defer_loom), expect(dead_code))]
    pub(crate) fn runtime(&self) -> Option<Handle> {
        lock(&self.state).runtime.clone()
    }

    /// The next callback for the runner; with `None` the runner has been let go, and the next
    /// push starts another one.
    pub(crate) fn next(&self) -> Option<BoxEntry> {
        let mut state = lock(&self.state);
        match state.take_or_let_go() {
            Some(entry) => Some(entry),
            None => {
                let is_empty = state.queue.len() == 0;
                let listed = is_empty.then(|| state.listed.take()).flatten();
                drop(state);
                if let Some(key) = listed {
                    self.options.tracker.delist(key);
                }
                None
            }
        }
    }

    /// The next callback for a runner that has others going; with `None` it is woken by a push.
    pub(crate) fn next_beside_others(&self, cx: &Context<'_>) -> Option<BoxEntry> {
        let mut state = lock(&self.state);
        let next = state.take();
        if next.is_none() {
            state.runner = Some(cx.waker().clone());
        }
        next
    }

    pub(crate) fn ended(&self, id: u64) {
        lock(&self.state).in_progress.remove(id);
    }

    pub(crate) fn set_rule(&self, id: u64, rule: Rule) {
        let mut rule = Some(rule);
        let mut state = lock(&self.state);
        // What was there before may be a predicate of the user's, and so is dropped unlocked.
        let old = match state.queue.header_mut(id) {
            Some(header) => rule
                .take()
                .map(|rule| std::mem::replace(&mut header.rule, rule)),
            None => rule.take(),
        };
        drop(state);
        drop_isolated(old);
    }

    pub(crate) fn set_timeout(&self, id: u64, timeout: Duration) {
        if let Some(header) = lock(&self.state).queue.header_mut(id) {
            header.timeout = Some(timeout);
        }
    }

    pub(crate) fn rename(&self, id: u64, name: Cow<'static, str>) {
        let mut state = lock(&self.state);
        let mut named = state.queue.rename(id, name);
        if let Named::Replaced(Some(replaced)) = &mut named {
            // The name is free, for the callback that has it now.
            replaced.as_mut().header_mut().claim = None;
        }
        let duplicate = self.claim(&mut state, id);
        drop(state);
        if let Named::Replaced(Some(entry)) | Named::Outranked(entry) = named {
            self.drop_pending(entry, Observers::replaced);
        }
        if let Some(duplicate) = duplicate {
            self.drop_pending(duplicate, Observers::duplicate);
        }
    }

    /// It is to be the only one of its name in the layer.
    pub(crate) fn make_unique(&self, id: u64) {
        let mut state = lock(&self.state);
        if let Some(header) = state.queue.header_mut(id) {
            header.unique = true;
        }
        let duplicate = self.claim(&mut state, id);
        drop(state);
        if let Some(duplicate) = duplicate {
            self.drop_pending(duplicate, Observers::duplicate);
        }
    }

    /// Claims the name of a callback that is to be unique; one that can't have it is out.
    fn claim(&self, state: &mut State, id: u64) -> Option<BoxEntry> {
        let header = state.queue.header_mut(id)?;
        // Of the name that it had before.
        header.claim = None;
        let name = header.name.as_ref().filter(|_| header.unique)?;
        header.claim = self.options.unique_names.claim(name).map(Box::new);
        match header.claim {
            Some(_) => None,
            None => state.queue.remove(id),
        }
    }

    pub(crate) fn cancel(&self, id: u64) -> bool {
        let entry = lock(&self.state).queue.remove(id);
        self.withdraw(entry)
    }

    pub(crate) fn forget(&self, name: &str) -> bool {
        let entry = lock(&self.state).queue.remove_named(name);
        self.withdraw(entry)
    }

    fn withdraw(&self, entry: Option<BoxEntry>) -> bool {
        let Some(entry) = entry else { return false };
        self.drop_pending(entry, Observers::cancelled);
        true
    }

    /// A callback that somebody wanted not to run; its observers are told why.
    fn drop_pending(&self, entry: BoxEntry, tell: impl FnOnce(&Observers, &CallbackInfo<'_>)) {
        self.announce(&entry);
        tell(&self.options.observers, &self.info(&entry.header));
        self.options.tracker.dropped(End::Withdrawn);
        drop_isolated(entry);
    }

    /// The handle of a callback is gone: its name and its rule are final, and it may run.
    pub(crate) fn settled(&self, id: u64) -> Start {
        self.announce_settled(id);
        let mut state = lock(&self.state);
        state.queue.release(id);
        go_on(state)
    }

    fn announce_settled(&self, id: u64) {
        if !self.options.observers.hear_registrations() {
            return;
        }
        let mut state = lock(&self.state);
        let info = state.queue.header_mut(id).and_then(|header| {
            let first = !std::mem::replace(&mut header.announced, true);
            first.then(|| (header.observed_id(), header.name.clone(), header.location))
        });
        if info.is_some() {
            // It must not start before everybody was told of it.
            state.queue.hold(id);
        }
        drop(state);
        if let Some((id, name, location)) = info {
            self.options.observers.registered(&CallbackInfo {
                id,
                name: name.as_deref(),
                location,
                scope: self.info.as_deref(),
                #[cfg(feature = "tracing")]
                span: None,
            });
        }
    }

    /// The callback was taken out: its name is final. Tells of the registration if the handle
    /// has not done so yet.
    pub(crate) fn announce(&self, entry: &BoxEntry) {
        let info = self.info(&entry.header);
        #[cfg(feature = "tracing")]
        crate::observe::trace::record_name(&info);
        if !entry.header.announced && self.options.observers.hear_registrations() {
            self.options.observers.registered(&info);
        }
    }

    /// What observers are told that the callback is.
    pub(crate) fn info<'a>(&'a self, header: &'a Header) -> CallbackInfo<'a> {
        CallbackInfo {
            id: header.observed_id(),
            name: header.name.as_deref(),
            location: header.location,
            scope: self.info.as_deref(),
            #[cfg(feature = "tracing")]
            span: header
                .observed
                .as_ref()
                .and_then(|observed| observed.span.as_ref()),
        }
    }

    /// Fills in what is only kept of a callback where somebody is told of it.
    pub(crate) fn observe(&self, header: &mut Header) {
        let observers = &self.options.observers;
        if self.info.is_none() && !observers.hear_times() {
            return;
        }
        let observed = header.observed.insert(Box::new(Observed {
            id: callback_info::next_id(),
            registered: Instant::now(),
            #[cfg(feature = "tracing")]
            span: None,
        }));
        #[cfg(feature = "tracing")]
        {
            observed.span = observers.span(&CallbackInfo {
                id: observed.id,
                name: None,
                location: header.location,
                scope: self.info.as_deref(),
                span: None,
            });
        }
        #[cfg(not(feature = "tracing"))]
        let _ = observed;
    }

    /// How long a callback that starts now has waited since it could have.
    pub(crate) fn waited(
        &self,
        header: &Header,
        completion: &Completion,
        now: Instant,
    ) -> Duration {
        let decided = self.opened + completion.elapsed();
        let ready = match &header.observed {
            Some(observed) => observed.registered.max(decided),
            None => decided,
        };
        now.saturating_duration_since(ready)
    }

    /// Gives up what is registered: it should have run, and can't.
    pub(crate) fn lose_all(&self, reason: LostReason) {
        while let Some(entry) = self.next() {
            self.ended(entry.header.id);
            self.announce(&entry);
            self.options
                .observers
                .lost(&self.info(&entry.header), reason);
            self.options.tracker.dropped(End::Lost);
            drop_isolated(entry);
        }
    }

    pub(crate) fn contains(&self, name: &str) -> bool {
        lock(&self.state).queue.contains(name)
    }

    pub(crate) fn len(&self) -> usize {
        lock(&self.state).queue.len()
    }

    pub(crate) fn names(&self) -> Vec<String> {
        lock(&self.state)
            .queue
            .headers()
            .filter_map(|header| header.name.as_deref().map(str::to_owned))
            .collect()
    }
}

/// Something may be ready now: for the runner that waits for it, or for one that is to be started.
fn go_on(mut state: MutexGuard<'_, State>) -> Start {
    let start = state.start_runner();
    let runner = state.runner.take();
    drop(state);
    if let Some(runner) = runner {
        runner.wake();
    }
    start
}

impl Unfinished for Scope {
    fn unfinished(&self) -> Vec<UnfinishedCallback> {
        let state = lock(&self.state);
        let pending = state.queue.headers().map(|header| UnfinishedCallback {
            name: header.name.clone(),
            location: header.location,
            running: false,
            age: header
                .observed
                .as_ref()
                .map(|observed| observed.registered.elapsed()),
            scope: self.info.clone(),
        });
        let running = state.in_progress.unfinished(self.info.as_ref());
        running.chain(pending).collect()
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        // Where every callback was withdrawn, no runner came to tidy up. Nothing else can be left:
        // who decides the scope, and who runs it, holds on to it until then.
        let listed = self
            .state
            .get_mut()
            .ok()
            .and_then(|state| state.listed.take());
        if let Some(key) = listed {
            self.options.tracker.delist(key);
        }
    }
}

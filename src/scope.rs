//! The state machine of one unit of work: open → decided → running → closed.
//!
//! Everything that can happen to a scope from several threads at once (a push, a decision, a
//! cancellation, the runner that looks for more) is one short critical section here. Whether the
//! caller now has to start a runner is part of what the section returns, so that exactly one is
//! started. No user code runs under the lock: callbacks that were taken out are returned.

use std::{
    borrow::Cow,
    sync::Arc,
    task::{Context, Waker},
    time::Duration,
};

use tokio::{runtime::Handle, time::Instant};

use crate::{
    callback::{BoxEntry, Header, Rule},
    completion::Completion,
    drain::{End, Unfinished, UnfinishedCallback},
    isolate::drop_isolated,
    observe::{CallbackInfo, LostReason},
    options::Options,
    queue::{Named, Queue},
    running::Running,
    sent::transmission::Transmission,
    sync::{Mutex, lock},
};

pub(crate) struct Scope {
    pub(crate) options: Arc<Options>,
    pub(crate) opened: Instant,
    /// The response that this scope waits for, where the connection reports what was sent.
    pub(crate) transmission: Option<Arc<Transmission>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    queue: Queue,
    /// Set once, when the scope fires.
    completion: Option<Completion>,
    /// A runner is on its way or at work; it looks for more before it goes.
    has_runner: bool,
    running: Running,
    /// Of a concurrent runner that waits for its callbacks and for new ones.
    runner: Option<Waker>,
    /// Where callbacks run if the scope fires on a thread that has no runtime.
    runtime: Option<Handle>,
    /// The key under which the tracker lists this scope.
    listed: Option<usize>,
}

/// Whether the caller has to start a runner.
#[derive(Clone, Copy, Debug)]
#[must_use]
pub(crate) enum Start {
    Runner(Completion),
    Nothing,
}

impl Scope {
    pub(crate) fn open(
        options: Arc<Options>,
        transmission: Option<Arc<Transmission>>,
    ) -> Arc<Self> {
        Arc::new(Self {
            options,
            opened: Instant::now(),
            transmission,
            state: Mutex::default(),
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
        if state.runtime.is_none() {
            state.runtime = Handle::try_current().ok();
        }
        let newly_listed = state.listed.is_none();
        if newly_listed {
            let scope: std::sync::Weak<Self> = Arc::downgrade(self);
            state.listed = Some(self.options.tracker.list(scope));
        }
        let start = state.start_runner();
        let runner = state.runner.take();
        drop(state);
        if let Some(runner) = runner {
            runner.wake();
        }
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
        debug_assert!(state.completion.is_none(), "a scope is decided once");
        state.completion = Some(completion);
        state.start_runner()
    }

    pub(crate) fn completion(&self) -> Option<Completion> {
        lock(&self.state).completion
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
        match state.take() {
            Some(entry) => Some(entry),
            None => {
                state.has_runner = false;
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

    pub(crate) fn not_running(&self, id: u64) {
        lock(&self.state).running.remove(id);
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
        let named = lock(&self.state).queue.rename(id, name);
        if let Named::Replaced(Some(entry)) | Named::Outranked(entry) = named {
            self.announce(&entry);
            self.options.observers.replaced(&entry.header);
            self.options.tracker.dropped(End::Withdrawn);
            drop_isolated(entry);
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
        self.announce(&entry);
        self.options.observers.cancelled(&entry.header);
        self.options.tracker.dropped(End::Withdrawn);
        drop_isolated(entry);
        true
    }

    /// The handle of a callback is gone: its name and its rule are final, and it may run.
    pub(crate) fn settled(&self, id: u64) -> Start {
        self.announce_settled(id);
        let mut state = lock(&self.state);
        state.queue.release(id);
        let start = state.start_runner();
        let runner = state.runner.take();
        drop(state);
        if let Some(runner) = runner {
            runner.wake();
        }
        start
    }

    fn announce_settled(&self, id: u64) {
        if !self.options.observers.hear_registrations() {
            return;
        }
        let mut state = lock(&self.state);
        let info = state.queue.header_mut(id).and_then(|header| {
            let first = !std::mem::replace(&mut header.announced, true);
            first.then(|| pending(header))
        });
        if info.is_some() {
            // It must not start before everybody was told of it.
            state.queue.hold(id);
        }
        drop(state);
        if let Some(info) = info {
            self.options.observers.registered(&CallbackInfo {
                name: info.name(),
                location: info.location,
            });
        }
    }

    /// The callback was taken out: its name is final. Tells of the registration if the handle
    /// has not done so yet.
    pub(crate) fn announce(&self, entry: &BoxEntry) {
        let header = &entry.header;
        #[cfg(feature = "tracing")]
        crate::observe::trace::record_name(header);
        if !header.announced && self.options.observers.hear_registrations() {
            self.options.observers.registered(&header.into());
        }
    }

    /// Gives up what is registered: it should have run, and can't.
    pub(crate) fn lose_all(&self, reason: LostReason) {
        while let Some(entry) = self.next() {
            self.not_running(entry.header.id);
            self.announce(&entry);
            self.options.observers.lost(&entry.header, reason);
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

impl State {
    fn start_runner(&mut self) -> Start {
        match self.completion {
            Some(completion) if !self.has_runner && self.queue.has_ready() => {
                self.has_runner = true;
                Start::Runner(completion)
            }
            _ => Start::Nothing,
        }
    }

    fn take(&mut self) -> Option<BoxEntry> {
        let entry = self.queue.pop()?;
        self.running.insert(&entry.header);
        Some(entry)
    }
}

fn pending(header: &Header) -> UnfinishedCallback {
    UnfinishedCallback {
        name: header.name.clone(),
        location: header.location,
        running: false,
    }
}

impl Unfinished for Scope {
    fn unfinished(&self) -> Vec<UnfinishedCallback> {
        let state = lock(&self.state);
        let pending = state.queue.headers().map(pending);
        state.running.unfinished().chain(pending).collect()
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

//! The state of one scope in the store.

use std::{panic::Location, sync::Arc, task::Waker};

use tokio::runtime::Handle;

use super::queue::{Queue, Taken};
use crate::{
    callback::entry::{Header, Name},
    clock::Instant,
    completion::Completion,
    drain::{Counts, report::UnfinishedCallback},
    observe::{callback_info::Phase, scope_info::ScopeInfo},
};

pub(super) struct ScopeState {
    queue: Queue,
    /// Created with the first callback that the response waits for.
    before: Option<Box<Before>>,
    /// Set once, when the scope is decided.
    completion: Option<Completion>,
    runner: RunnerState,
    running: Vec<RunningCallback>,
    /// The runtime for the runner, which takes it when it starts.
    runtime: Option<Handle>,
    info: Option<Arc<ScopeInfo>>,
}

/// The callbacks that the response waits for.
#[derive(Default)]
struct Before {
    queue: Queue,
    /// Set when the phase begins.
    completion: Option<Completion>,
}

enum RunnerState {
    None,
    /// Takes the next callback before it ends.
    Active,
    /// Waits for its other callbacks and for new ones.
    Waiting(Waker),
}

/// A callback that was taken to run.
struct RunningCallback {
    id: u64,
    phase: Phase,
    name: Option<Name>,
    location: &'static Location<'static>,
    /// `None` while it waits for its name in another scope, or if no handle exists.
    since: Option<Instant>,
    waits: bool,
}

/// A runner that the caller must spawn.
#[must_use]
pub(crate) struct Start {
    pub(crate) completion: Completion,
    /// The runtime on which `defer` was called, if any.
    pub(crate) runtime: Option<Handle>,
    /// The first callback, unless the runner must wait before it may take one.
    pub(crate) first: Option<Taken>,
}

/// Work for the caller after a callback has become ready.
#[derive(Default)]
#[must_use]
pub(super) struct Ready {
    pub(super) start: Option<Start>,
    pub(super) waker: Option<Waker>,
}

impl ScopeState {
    pub(super) fn new(info: Option<Arc<ScopeInfo>>) -> Box<Self> {
        Box::new(Self {
            queue: Queue::default(),
            before: None,
            completion: None,
            runner: RunnerState::None,
            running: Vec::new(),
            runtime: None,
            info,
        })
    }

    /// Returns the completion that the callbacks of a phase receive, once the phase has begun.
    pub(super) fn completion(&self, phase: Phase) -> Option<Completion> {
        match phase {
            Phase::Before => self.before.as_ref()?.completion.clone(),
            Phase::After => self.completion.clone(),
        }
    }

    /// Decides the scope. The caller owns the right to do it, so it happens once.
    #[inline]
    pub(super) fn decide(&mut self, completion: Completion) {
        debug_assert!(self.completion.is_none(), "a scope is decided once");
        self.completion = Some(completion);
    }

    pub(super) fn begin_before(&mut self, completion: Completion) {
        if let Some(before) = &mut self.before {
            before.completion = Some(completion);
        }
    }

    /// Keeps the runtime of the calling thread. Later registrations may come from threads without
    /// one.
    #[inline]
    pub(super) fn remember_runtime(&mut self) {
        if self.runtime.is_none() {
            self.runtime = Handle::try_current().ok();
        }
    }

    pub(super) fn runtime(&self) -> Option<Handle> {
        self.runtime.clone()
    }

    /// Stores the runtime, and returns the previous one.
    pub(super) fn set_runtime(&mut self, runtime: Option<Handle>) -> Option<Handle> {
        std::mem::replace(&mut self.runtime, runtime)
    }

    pub(super) fn queue_mut(&mut self, phase: Phase) -> &mut Queue {
        match phase {
            Phase::Before => &mut self.before.get_or_insert_default().queue,
            Phase::After => &mut self.queue,
        }
    }

    /// Returns the queues of both phases, in the order in which they run.
    pub(super) fn queues(&self) -> impl Iterator<Item = &Queue> {
        let before = self.before.iter().map(|before| &before.queue);
        before.chain([&self.queue])
    }

    /// Like [`queue_mut`](Self::queue_mut), but creates no queue.
    pub(super) fn existing_queue_mut(&mut self, phase: Phase) -> Option<&mut Queue> {
        match phase {
            Phase::Before => self.before.as_mut().map(|before| &mut before.queue),
            Phase::After => Some(&mut self.queue),
        }
    }

    pub(super) fn has_before(&self) -> bool {
        self.before.is_some()
    }

    /// Starts or wakes the runner if a callback is ready. If `hand_over`, a new runner receives the
    /// first callback with the start.
    #[inline]
    pub(super) fn start_if_ready(
        &mut self,
        counts: &mut Counts,
        hand_over: bool,
        now: impl FnOnce() -> Option<Instant>,
    ) -> Ready {
        let Some(completion) = &self.completion else {
            return Ready::default();
        };
        if !self.queue.has_ready() {
            return Ready::default();
        }
        match std::mem::replace(&mut self.runner, RunnerState::Active) {
            RunnerState::Active => Ready::default(),
            RunnerState::Waiting(waker) => Ready {
                start: None,
                waker: Some(waker),
            },
            RunnerState::None => Ready {
                start: Some(Start {
                    completion: completion.clone(),
                    runtime: self.runtime.take(),
                    first: match hand_over {
                        true => self.take(Phase::After, counts, now),
                        false => None,
                    },
                }),
                waker: None,
            },
        }
    }

    /// Takes the next callback of a phase to run.
    #[inline]
    pub(super) fn take(
        &mut self,
        phase: Phase,
        counts: &mut Counts,
        now: impl FnOnce() -> Option<Instant>,
    ) -> Option<Taken> {
        let taken = self.existing_queue_mut(phase)?.pop()?;
        counts.pending -= 1;
        counts.running += 1;
        if self.running.is_empty() {
            // Most scopes run one callback at a time.
            self.running.reserve_exact(1);
        }
        self.running.push(RunningCallback {
            id: taken.id,
            phase,
            name: taken.entry.header.name.clone(),
            location: taken.entry.header.location,
            since: now(),
            waits: false,
        });
        Some(taken)
    }

    /// Removes a callback that has ended from the running ones.
    #[inline]
    pub(super) fn end(&mut self, id: u64, phase: Phase, counts: &mut Counts) {
        let is_it = |running: &RunningCallback| running.id == id && running.phase == phase;
        if let Some(index) = self.running.iter().position(is_it) {
            let running = self.running.swap_remove(index);
            if running.waits {
                counts.pending -= 1;
            } else {
                counts.running -= 1;
            }
        }
    }

    /// Counts a callback that was taken as pending while it waits for its name in another scope.
    pub(super) fn set_waiting(
        &mut self,
        id: u64,
        waits: bool,
        counts: &mut Counts,
        since: Option<Instant>,
    ) {
        let is_it =
            |running: &&mut RunningCallback| running.id == id && running.phase == Phase::After;
        let Some(running) = self.running.iter_mut().find(is_it) else {
            return;
        };
        if running.waits != waits {
            running.waits = waits;
            running.since = since;
            let (from, to) = match waits {
                true => (&mut counts.running, &mut counts.pending),
                false => (&mut counts.pending, &mut counts.running),
            };
            *from -= 1;
            *to += 1;
        }
    }

    /// Lets the runner wait for new callbacks, or end. Returns a waker to drop after the lock.
    pub(super) fn set_runner(&mut self, waiting: Option<Waker>) -> Option<Waker> {
        let state = match waiting {
            Some(waker) => RunnerState::Waiting(waker),
            None => RunnerState::None,
        };
        match std::mem::replace(&mut self.runner, state) {
            RunnerState::Waiting(waker) => Some(waker),
            RunnerState::None | RunnerState::Active => None,
        }
    }

    pub(super) fn has_ready(&self) -> bool {
        self.queue.has_ready()
    }

    /// Lists the unfinished callbacks: those that run, then those in the queues.
    pub(super) fn unfinished(&self, now: Instant) -> impl Iterator<Item = UnfinishedCallback> {
        let opened = self.info.as_ref().map(|info| info.opened);
        let age = move |since: Option<Instant>| Some(now.saturating_duration_since(since?));
        let running = self.running.iter().map(move |running| UnfinishedCallback {
            name: running.name.clone(),
            location: running.location,
            running: !running.waits,
            age: age(running.since.or(opened)),
            scope: self.info.clone(),
        });
        let pending = move |header: &Header| UnfinishedCallback {
            name: header.name.clone(),
            location: header.location,
            running: false,
            age: age(opened),
            scope: self.info.clone(),
        };
        running.chain(self.queues().flat_map(Queue::headers).map(pending))
    }
}

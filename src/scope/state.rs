//! The state machine of one scope, as plain data.
//!
//! ```text
//!            push, hold, release, rename, remove: at any time
//!
//!   ┌──────┐  decide   ┌─────────┐  start_runner   ┌─────────┐
//!   │ open │──────────▶│ decided │────────────────▶│ running │──┐ take:
//!   └──────┘   once    └─────────┘  one is ready   └─────────┘◀─┘ the next one
//!                           ▲                           │
//!                           └───────────────────────────┘
//!                            take: none is ready, and the
//!                            runner has been let go
//! ```
//!
//! A scope is *closed* when it is decided and nothing is left in it; what is pushed then starts
//! another runner. Whether the caller has to start one is part of what a step returns, so that
//! there is one at the most.

use std::task::Waker;

use tokio::runtime::Handle;

use super::{in_progress::InProgress, queue::Queue};
use crate::{
    callback::entry::{BoxEntry, Header},
    completion::Completion,
    drain::reservation::Reservation,
    observe::phase::Phase,
};

#[derive(Default)]
pub(super) struct State {
    pub(super) queue: Queue,
    /// Made with the first callback that the response has to wait for: most requests have none.
    pub(super) before: Option<Box<Before>>,
    /// Set once, when the scope fires.
    completion: Option<Completion>,
    /// A runner is on its way or at work; it looks for more before it goes.
    has_runner: bool,
    pub(super) in_progress: InProgress,
    /// Wakes a concurrent runner, which waits for its callbacks and for new ones.
    pub(super) runner: Option<Waker>,
    /// Where callbacks run. A runner takes it over when it starts.
    pub(super) runtime: Option<Handle>,
    /// What the request has under `max_pending` until it defers something.
    pub(super) reservation: Option<Reservation>,
    /// The key under which the tracker lists this scope.
    pub(super) listed: Option<usize>,
}

/// The state of a scope that may never have one: most requests register nothing, and pay nothing for it.
pub(super) struct LazyState(Option<State>);

impl LazyState {
    #[inline]
    pub(super) fn new(reservation: Option<Reservation>) -> Self {
        Self(reservation.map(|reservation| State {
            reservation: Some(reservation),
            ..State::default()
        }))
    }

    #[inline]
    pub(super) fn get(&mut self) -> &mut State {
        self.0.get_or_insert_default()
    }

    /// The key under which the tracker lists the scope, for who takes it off the list.
    pub(super) fn take_listed(&mut self) -> Option<usize> {
        self.0.as_mut()?.listed.take()
    }
}

/// A callback that was registered, as its handle knows it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Registration {
    pub(crate) phase: Phase,
    /// Its number in the queue of its phase.
    pub(crate) id: u64,
}

/// The first phase: what the response waits for.
#[derive(Default)]
pub(super) struct Before {
    pub(super) queue: Queue,
    /// What its callbacks are told; there when it has begun.
    pub(super) completion: Option<Completion>,
}

/// Whether the caller has to start a runner.
#[must_use]
pub(crate) enum Start {
    Runner {
        completion: Completion,
        /// The one that `defer` was called on, if it was called on any.
        runtime: Option<Handle>,
        /// The first callback, where the runner has been handed it.
        first: Option<BoxEntry>,
    },
    Nothing,
}

/// What is to be done, without the lock, after something was registered or released.
#[must_use]
pub(super) struct Pushed {
    start: Start,
    /// Of a concurrent runner, which waits for it.
    runner: Option<Waker>,
    /// There is a callback in the place that was kept.
    reservation: Option<Reservation>,
}

impl Pushed {
    #[inline(always)]
    pub(super) fn go_on(self) -> Start {
        if let Some(runner) = self.runner {
            runner.wake();
        }
        drop(self.reservation);
        self.start
    }
}

impl State {
    #[inline]
    pub(super) fn decide(&mut self, completion: Completion) -> Start {
        debug_assert!(self.completion.is_none(), "a scope is decided once");
        // Whoever registers something from now on may do so on a thread that has none.
        self.remember_runtime();
        self.completion = Some(completion);
        self.start_runner()
    }

    /// Where callbacks run, if this thread knows a place and none is known yet.
    #[inline]
    pub(super) fn remember_runtime(&mut self) {
        if self.runtime.is_none() {
            self.runtime = Handle::try_current().ok();
        }
    }

    pub(super) fn completion(&self) -> Option<Completion> {
        self.completion
    }

    /// What the callbacks of a phase are told, once it has begun.
    pub(super) fn completion_in(&self, phase: Phase) -> Option<Completion> {
        match phase {
            Phase::Before => self.before.as_ref()?.completion,
            Phase::After => self.completion,
        }
    }

    pub(super) fn queue_of(&mut self, phase: Phase) -> &mut Queue {
        match phase {
            Phase::Before => &mut self.before.get_or_insert_default().queue,
            Phase::After => &mut self.queue,
        }
    }

    pub(super) fn header_mut(&mut self, registration: Registration) -> Option<&mut Header> {
        self.queue_of(registration.phase)
            .header_mut(registration.id)
    }

    pub(super) fn remove(&mut self, registration: Registration) -> Option<BoxEntry> {
        self.queue_of(registration.phase).remove(registration.id)
    }

    /// Something may be ready now.
    #[inline]
    pub(super) fn pushed(&mut self) -> Pushed {
        Pushed {
            start: self.start_runner(),
            runner: self.runner.take(),
            reservation: self.reservation.take(),
        }
    }

    /// Those of both phases, in their order.
    pub(super) fn queues(&self) -> impl Iterator<Item = &Queue> {
        let before = self.before.iter().map(|before| &before.queue);
        before.chain([&self.queue])
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queues().all(|queue| queue.len() == 0)
    }

    /// The next callback of the first phase.
    pub(super) fn take_before(&mut self) -> Option<BoxEntry> {
        let entry = self.before.as_mut()?.queue.pop()?;
        self.taken(&entry);
        Some(entry)
    }

    #[inline]
    fn start_runner(&mut self) -> Start {
        match self.completion {
            Some(completion) if !self.has_runner && self.queue.has_ready() => {
                self.has_runner = true;
                Start::Runner {
                    completion,
                    runtime: self.runtime.take(),
                    first: None,
                }
            }
            _ => Start::Nothing,
        }
    }

    /// The next callback for the runner, which stays.
    #[inline(always)]
    pub(super) fn take(&mut self) -> Option<BoxEntry> {
        let entry = self.queue.pop()?;
        self.taken(&entry);
        Some(entry)
    }

    #[inline]
    fn taken(&mut self, entry: &BoxEntry) {
        // Those ask for it who find the scope by the list.
        if self.listed.is_some() {
            self.in_progress.insert(&entry.header);
        }
    }

    /// One has ended; the next one for the runner, which has been let go with `None`.
    #[inline]
    pub(super) fn end_and_take(&mut self, ended: Option<u64>) -> Option<BoxEntry> {
        if let (Some(id), Some(_)) = (ended, self.listed) {
            self.in_progress.remove(id);
        }
        let entry = self.take();
        self.has_runner = entry.is_some();
        entry
    }
}

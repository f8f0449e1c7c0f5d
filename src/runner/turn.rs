//! One callback's turn: judged, run within its limits, reported.

use std::{
    fmt,
    future::{Future, poll_fn},
    panic::Location,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    task::coop::{self, Unconstrained},
    time::Sleep,
};

use crate::{
    callback::{
        entry::BoxEntry,
        output::{BoxError, Failure},
    },
    clock::{self, Instant},
    completion::Completion,
    drain::tally::End,
    isolate::{drop_isolated, isolate},
    observe::{
        outcome::{Finished, LostReason, Outcome},
        phase::Phase,
    },
    scope::{
        Scope,
        current::{self, Current},
    },
};

/// Where callbacks of a scope have their turns, one after the other. Each leaves by exactly one of
/// the exits; one that is here when this is dropped was lost.
pub(super) struct Turn {
    /// There but for the time during which the thread has it, while code of the callback runs.
    current: Option<Current>,
    entry: Option<BoxEntry>,
    stage: Stage,
    /// When it started, where somebody may be told.
    started: Option<Instant>,
    /// Boxed, as most callbacks have no limit.
    timeout: Option<Pin<Box<Unconstrained<Sleep>>>>,
    /// What it failed with, where a response becomes a failure because of it.
    #[expect(
        clippy::box_collection,
        reason = "every turn has room for it, few need it"
    )]
    failure: Option<Box<String>>,
}

/// How far a callback has come.
#[derive(Clone, Copy)]
enum Stage {
    /// It was taken out, or there is none.
    Waits {
        /// One was running here, in whose place it is.
        follows: bool,
    },
    Runs,
    /// Nothing of it is left but what the scope and the tracker have to be told.
    Ended {
        id: u64,
        end: End,
        had_started: bool,
        /// It was running, or had followed one that was.
        counts_as_running: bool,
    },
}

impl Turn {
    /// The turn of this callback, or nobody's.
    pub(super) fn of(scope: Arc<Scope>, entry: Option<BoxEntry>) -> Self {
        if let Some(entry) = &entry {
            scope.announce(entry);
        }
        Self {
            current: Some(Current::driven(scope)),
            entry,
            stage: Stage::Waits { follows: false },
            started: None,
            timeout: None,
            failure: None,
        }
    }

    #[inline]
    pub(super) fn scope(&self) -> &Arc<Scope> {
        match &self.current {
            Some(current) => &current.scope,
            None => unreachable!("the thread gives back what it was given"),
        }
    }

    #[inline]
    pub(super) fn scope_mut(&mut self) -> &mut Arc<Scope> {
        match &mut self.current {
            Some(current) => &mut current.scope,
            None => unreachable!("the thread gives back what it was given"),
        }
    }

    /// Tells of the end of a callback, and has the next one in its place if there is one.
    #[inline]
    pub(super) fn pass_on(&mut self) -> bool {
        let ended = match self.stage {
            Stage::Ended { id, .. } => Some(id),
            Stage::Waits { .. } | Stage::Runs => None,
        };
        let next = self.scope_mut().next(ended);
        self.tell_tracker(next.is_some());
        self.entry = next;
        if let Some(entry) = &self.entry {
            self.scope().announce(entry);
        }
        self.entry.is_some()
    }

    /// Tells of the end of a callback which is not followed by another one.
    fn settle(&mut self) {
        if let Stage::Ended { id, .. } = self.stage {
            self.scope().ended(id);
            self.tell_tracker(false);
        }
    }

    #[inline]
    fn tell_tracker(&mut self, is_followed: bool) {
        if let Stage::Ended {
            end,
            had_started,
            counts_as_running,
            ..
        } = self.stage
        {
            self.stage = Stage::Waits {
                follows: counts_as_running && is_followed,
            };
            let runs_no_more = counts_as_running && !is_followed;
            let options = &self.scope().options;
            if had_started {
                options.tracker.ended(options.shard, end, runs_no_more);
            } else {
                options.tracker.dropped(options.shard, end, runs_no_more);
            }
        }
    }

    /// The callback that is here was cut off, or never came to its turn.
    pub(super) fn cut_off(&mut self) {
        self.lose(match self.stage {
            Stage::Runs => LostReason::Interrupted,
            Stage::Waits { .. } | Stage::Ended { .. } => LostReason::NoRuntime,
        });
        self.settle();
    }

    /// The callback's name, and where it was registered.
    pub(super) fn who(&self) -> (Option<String>, &'static Location<'static>) {
        match &self.entry {
            Some(entry) => {
                let name = entry.header.name.as_deref().map(str::to_owned);
                (name, entry.header.location)
            }
            None => (None, Location::caller()),
        }
    }

    /// Whether the response may go out after this callback; if not, what it failed with.
    pub(super) fn failure(&mut self) -> Option<String> {
        match self.stage {
            Stage::Ended {
                end: End::Failed | End::Lost,
                ..
            } => Some(*self.failure.take().unwrap_or_default()),
            _ => None,
        }
    }

    /// From the verdict to the report, of the callback that is here.
    pub(super) async fn run(&mut self, completion: &Completion) {
        poll_fn(|cx| self.poll(cx, completion)).await;
    }

    /// From the verdict to the report; ready at once where there is no callback.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, completion: &Completion) -> Poll<()> {
        let runs = match self.stage {
            Stage::Runs => true,
            Stage::Waits { follows } => {
                self.is_allowed(completion) && self.start(completion, follows)
            }
            Stage::Ended { .. } => false,
        };
        if !runs {
            return Poll::Ready(());
        }
        let Some(entry) = &mut self.entry else {
            return Poll::Ready(());
        };
        let id = entry.header.id;
        let polled = if entry.header.observed().is_some() {
            // Left before anybody is told of the end: who waits for it may rely on the span
            // being closed.
            #[cfg(feature = "tracing")]
            let _span = entry.header.span().map(|span| span.clone().entered());
            let _entered = current::enter(&mut self.current);
            isolate(|| entry.as_mut().poll_callback(cx, completion))
        } else {
            let _entered = current::enter(&mut self.current);
            let entry = &mut self.entry;
            let mut has_run = false;
            let polled = isolate(|| {
                let polled = match entry {
                    Some(entry) => entry.as_mut().poll_callback(cx, completion),
                    None => Poll::Pending,
                };
                // Nobody is told of its good end, so it may go at once: with one guard for both.
                if let Poll::Ready(Ok(())) = polled {
                    has_run = true;
                    *entry = None;
                }
                polled
            });
            // The destructor may panic as it likes.
            if has_run {
                Ok(Poll::Ready(Ok(())))
            } else {
                polled
            }
        };
        match polled {
            Ok(Poll::Pending) => return self.poll_timeout(cx, completion),
            Ok(Poll::Ready(Ok(()))) if self.entry.is_none() => self.left(id, End::Ran),
            Ok(Poll::Ready(Ok(()))) => self.finish(Outcome::Ok, completion),
            Ok(Poll::Ready(Err(Failure::Lost))) => self.lose(LostReason::NoRuntime),
            Ok(Poll::Ready(Err(Failure::Error(error)))) => {
                self.finish(Outcome::Error(error.as_ref()), completion);
                drop_isolated::<BoxError>(error);
            }
            Err(message) => self.finish(Outcome::Panicked(&message), completion),
        }
        Poll::Ready(())
    }

    fn poll_timeout(&mut self, cx: &mut Context<'_>, completion: &Completion) -> Poll<()> {
        let Some(timeout) = &mut self.timeout else {
            return Poll::Pending;
        };
        ready!(timeout.as_mut().poll(cx));
        if let Some(limit) = self.limit() {
            self.finish(Outcome::TimedOut(limit), completion);
        }
        Poll::Ready(())
    }

    #[inline]
    fn is_allowed(&mut self, completion: &Completion) -> bool {
        let Some(entry) = &self.entry else {
            return false;
        };
        let scope = self.scope();
        let options = &scope.options;
        match entry.header.rule.allows(completion, options.rule.as_ref()) {
            Ok(true) => true,
            Ok(false) => {
                options
                    .observers
                    .skipped(&scope.info(&entry.header), completion);
                self.leave(End::Skipped);
                false
            }
            Err(message) => {
                let finished = Finished {
                    outcome: Outcome::Panicked(&message),
                    waited: Duration::ZERO,
                    took: Duration::ZERO,
                };
                options
                    .observers
                    .finished(&scope.info(&entry.header), &finished);
                self.note_failure(&finished.outcome);
                self.leave(End::Failed);
                false
            }
        }
    }

    #[inline]
    fn limit(&self) -> Option<Duration> {
        let own = self.entry.as_ref().and_then(|entry| entry.header.timeout());
        own.or(self.scope().options.timeout)
    }

    /// Whether it has; if not, it has failed.
    #[inline]
    fn start(&mut self, completion: &Completion, follows: bool) -> bool {
        let Some(entry) = &self.entry else {
            return false;
        };
        let scope = self.scope();
        let observers = &scope.options.observers;
        let started = observers.hear_ends().then(Instant::now);
        scope.options.tracker.started(scope.options.shard, follows);
        if let Some(started) = started.filter(|_| observers.hear_times()) {
            let info = scope.info(&entry.header);
            observers.started(&info, scope.waited(&entry.header, completion, started));
        }
        self.started = started;
        self.stage = Stage::Runs;
        // A limit beyond all that the clock can tell is none, and needs no timer.
        let is_in_sight = |limit: &Duration| Instant::now().checked_add(*limit).is_some();
        let Some(limit) = self.limit().filter(is_in_sight) else {
            return true;
        };
        match clock::sleep(limit) {
            Ok(sleep) => {
                // The time is looked at however much of its budget the callback has used up.
                self.timeout = Some(Box::pin(coop::unconstrained(sleep)));
                true
            }
            Err(no_timer) => {
                self.finish(Outcome::Error(&no_timer), completion);
                false
            }
        }
    }

    #[inline]
    fn finish(&mut self, outcome: Outcome<'_>, completion: &Completion) {
        let Some(entry) = &self.entry else { return };
        let is_ok = matches!(outcome, Outcome::Ok);
        // Of a good end, nobody is told where nobody was of the registration.
        if !is_ok || entry.header.observed().is_some() {
            self.tell_of_end(entry, outcome, completion);
        }
        if !is_ok {
            self.note_failure(&outcome);
        }
        self.leave(if is_ok { End::Ran } else { End::Failed });
    }

    fn tell_of_end(&self, entry: &BoxEntry, outcome: Outcome<'_>, completion: &Completion) {
        let scope = self.scope();
        let observers = &scope.options.observers;
        let info = scope.info(&entry.header);
        if matches!(outcome, Outcome::Ok) && !observers.hear_success(&info) {
            return;
        }
        let times = self.started.map(|started| {
            let waited = scope.waited(&entry.header, completion, started);
            (waited, started.elapsed())
        });
        let (waited, took) = times.unwrap_or_default();
        observers.finished(
            &info,
            &Finished {
                outcome,
                waited,
                took,
            },
        );
    }

    fn note_failure(&mut self, why: &impl fmt::Display) {
        if self
            .entry
            .as_ref()
            .is_some_and(|entry| entry.header.phase == Phase::Before)
        {
            // The text of an error is user code.
            let text = isolate(|| why.to_string());
            self.failure = Some(Box::new(text.unwrap_or_else(|panic| panic)));
        }
    }

    fn lose(&mut self, reason: LostReason) {
        if let Some(entry) = &self.entry {
            let scope = self.scope();
            scope
                .options
                .observers
                .lost(&scope.info(&entry.header), reason);
            self.note_failure(&reason);
            self.leave(End::Lost);
        }
    }

    /// Nothing of the callback is left when the tracker is told: whoever waits until idle may
    /// rely on what it captured being gone.
    #[inline]
    fn leave(&mut self, end: End) {
        let Some(entry) = self.entry.take() else {
            return;
        };
        self.left(entry.header.id, end);
        // What the callback captured may defer something when it is dropped, as its code may.
        let _entered = current::enter(&mut self.current);
        drop_isolated(entry);
    }

    #[inline(always)]
    fn left(&mut self, id: u64, end: End) {
        if self.timeout.is_some() {
            self.timeout = None;
        }
        let (had_started, counts_as_running) = match self.stage {
            Stage::Waits { follows } => (false, follows),
            Stage::Runs | Stage::Ended { .. } => (true, true),
        };
        self.stage = Stage::Ended {
            id,
            end,
            had_started,
            counts_as_running,
        };
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.cut_off();
    }
}

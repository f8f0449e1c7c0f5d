//! One callback, from the moment it is taken until its end is reported.

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
    sync::oneshot,
    task::coop::{self, Unconstrained},
    time::Sleep,
};

use crate::{
    callback::{
        entry::{BoxEntry, Competition},
        output::{BoxError, Failure},
    },
    catch_panic::{catch_panic, drop_catching_panic},
    clock::{self, Instant},
    completion::Completion,
    observe::{
        callback_info::Phase,
        outcome::{Finished, LostReason, Outcome},
    },
    scope::{
        Current, Ended, Registration, Role, Scope, Then, current,
        names::{Claim, Claiming},
        queue::Taken,
        store::Disposition,
    },
};

/// The execution of callbacks of a scope, one after the other.
///
/// ```text
///             rule, name                 poll                report, drop
///  ┌───────┐  allowed, free  ┌─────────┐   ready   ┌───────┐  advance  ┌──────┐
///  │ taken │────────────────▶│ running │──────────▶│ ended │──────────▶│ idle │
///  └───────┘                 └─────────┘           └───────┘           └──────┘
///      │  allowed, claimed elsewhere  ▲                ▲
///      ├────────────▶ queued ─────────┘                │
///      └──────────── skipped, duplicate ───────────────┘
/// ```
///
/// A callback that is here when this is dropped is lost, and its end is counted.
pub(super) struct Execution {
    /// `None` only while code of the callback runs, which has it as the current scope.
    current: Option<Current>,
    /// The callback, until it has ended.
    entry: Option<BoxEntry>,
    id: u64,
    stage: Stage,
    /// `Some` if the duration may be reported.
    started: Option<Instant>,
    rare: Option<Box<RareFields>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// There is no callback.
    Idle,
    Taken,
    /// It waits until its name is free.
    Queued,
    /// Its name is free now.
    Claimed,
    Running,
    /// Only the store does not know of its end yet.
    Ended(Phase, Disposition),
}

#[derive(Default)]
struct RareFields {
    timeout: Option<Pin<Box<Unconstrained<Sleep>>>>,
    /// Passes the name on when the callback has ended.
    claim: Option<Claim>,
    granted: Option<oneshot::Receiver<Claim>>,
    /// The text of the failure of a callback before the response.
    failure: Option<String>,
}

impl Execution {
    pub(super) fn new(scope: Arc<Scope>, taken: Option<Taken>) -> Self {
        let mut execution = Self {
            current: Some(Current::polled(scope)),
            entry: None,
            id: 0,
            stage: Stage::Idle,
            started: None,
            rare: None,
        };
        execution.set(taken);
        execution
    }

    /// Begins with a callback. The previous one has ended and is counted.
    #[inline]
    fn set(&mut self, taken: Option<Taken>) {
        let Some(Taken { id, entry }) = taken else {
            self.stage = Stage::Idle;
            return;
        };
        self.scope().announce(&entry.header);
        if let Some(current) = &mut self.current {
            current.role = Role::Callback(id);
        }
        self.id = id;
        self.entry = Some(entry);
        self.stage = Stage::Taken;
        self.started = None;
        self.rare = None;
    }

    #[inline]
    pub(super) fn scope(&self) -> &Arc<Scope> {
        match &self.current {
            Some(current) => &current.scope,
            None => unreachable!("the guard restores the scope"),
        }
    }

    /// Returns `true` if there is no callback.
    pub(super) fn is_idle(&self) -> bool {
        self.stage == Stage::Idle
    }

    /// Returns `true` if the callback waits until its name is free.
    pub(super) fn is_queued(&self) -> bool {
        self.stage == Stage::Queued
    }

    /// Returns `true` if no code of the callback has run yet.
    pub(super) fn is_waiting(&self) -> bool {
        matches!(self.stage, Stage::Taken | Stage::Queued | Stage::Claimed)
    }

    /// Counts the end of the callback, and begins with the next one. Returns `false` if there is
    /// none.
    #[inline]
    pub(super) fn advance(&mut self, then: Then) -> bool {
        let ended = self.take_ended();
        let next = self.scope().advance(ended, then);
        self.set(next);
        !self.is_idle()
    }

    #[inline]
    fn take_ended(&mut self) -> Option<Ended> {
        let Stage::Ended(phase, disposition) = self.stage else {
            return None;
        };
        self.stage = Stage::Idle;
        let registration = Registration { phase, id: self.id };
        Some(Ended {
            registration,
            disposition,
        })
    }

    /// Runs the callback until its end is reported.
    pub(super) async fn run(&mut self, completion: &Completion) {
        poll_fn(|cx| self.poll(cx, completion)).await;
    }

    /// Returns the name and location of the callback.
    pub(super) fn name_and_location(&self) -> (Option<String>, &'static Location<'static>) {
        match &self.entry {
            Some(entry) => {
                let name = entry.header.name.as_deref().map(str::to_owned);
                (name, entry.header.location)
            }
            None => (None, Location::caller()),
        }
    }

    /// Returns the text of the failure, if the callback failed or was lost.
    pub(super) fn failure(&mut self) -> Option<String> {
        match self.stage {
            Stage::Ended(_, Disposition::Failed | Disposition::Lost) => {
                let failure = self.rare.as_mut().and_then(|rare| rare.failure.take());
                Some(failure.unwrap_or_default())
            }
            _ => None,
        }
    }

    /// Polls a queued callback until its name is free.
    pub(super) fn poll_claim(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let granted = self.rare.as_mut().and_then(|rare| rare.granted.as_mut());
        let Some(granted) = granted.filter(|_| self.stage == Stage::Queued) else {
            return Poll::Ready(());
        };
        let claim = ready!(Pin::new(granted).poll(cx));
        let rare = self.rare_mut();
        rare.granted = None;
        rare.claim = claim.ok();
        self.scope().set_waiting(self.id, false);
        self.stage = Stage::Claimed;
        Poll::Ready(())
    }

    /// Polls the callback until its end is reported. Ready at once if there is none.
    #[inline]
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, completion: &Completion) -> Poll<()> {
        if self.stage == Stage::Taken && self.is_allowed(completion) {
            self.claim_name();
        }
        if self.stage == Stage::Queued {
            ready!(self.poll_claim(cx));
        }
        if self.stage == Stage::Claimed {
            self.start(completion);
        }
        if self.stage == Stage::Running {
            ready!(self.poll_callback(cx, completion));
        }
        Poll::Ready(())
    }

    /// Returns `true` if the rule allows the callback to run. Otherwise it has ended.
    #[inline]
    fn is_allowed(&mut self, completion: &Completion) -> bool {
        let Some(entry) = &self.entry else {
            return false;
        };
        let scope = self.scope();
        let options = &scope.options;
        match entry.header.allows(completion, options.rule.as_deref()) {
            Ok(true) => true,
            Ok(false) => {
                self.skip(completion);
                false
            }
            Err(message) => {
                self.finish(Outcome::Panicked(&message), completion);
                false
            }
        }
    }

    /// Claims the name of a callback that competes with others, or queues for it.
    #[inline]
    fn claim_name(&mut self) {
        self.stage = Stage::Claimed;
        let Some(header) = self.entry.as_ref().map(|entry| &entry.header) else {
            return;
        };
        if let (Some(competition), Some(name)) = (header.competition(), header.name.clone()) {
            self.compete(competition, &name);
        }
    }

    fn compete(&mut self, competition: Competition, name: &crate::callback::entry::Name) {
        let scope = self.scope();
        let ancestors: Vec<_> = scope.ancestors().filter_map(Current::holder).collect();
        let (holder, names) = (scope.holder(self.id), &scope.options.names);
        match names.claim(name, competition, holder, &ancestors) {
            Claiming::Claimed(claim) => self.rare_mut().claim = Some(claim),
            Claiming::Queued(granted) => {
                scope.set_waiting(self.id, true);
                self.rare_mut().granted = Some(granted);
                self.stage = Stage::Queued;
            }
            Claiming::Duplicate => {
                if let Some(entry) = &self.entry {
                    let info = scope.callback_info(&entry.header);
                    scope.options.observers.deduplicated(&info);
                }
                self.end(Disposition::Withdrawn);
            }
        }
    }

    /// Starts the timer and reports the start.
    #[inline]
    fn start(&mut self, completion: &Completion) {
        self.stage = Stage::Running;
        let Some(entry) = &self.entry else { return };
        let scope = self.scope();
        let interest = scope.interest;
        #[cfg(feature = "metrics")]
        crate::observe::metrics::started();
        let started = (interest.timing || interest.failures).then(Instant::now);
        if let Some(now) = started.filter(|_| interest.timing) {
            let queue_time = scope.queue_time(&entry.header, completion, now);
            let info = scope.callback_info(&entry.header);
            scope.options.observers.started(&info, queue_time);
        }
        let limit = entry.header.timeout().or(scope.options.timeout);
        self.started = started;
        if let Some(limit) = limit {
            self.start_timer(limit, completion);
        }
    }

    fn start_timer(&mut self, limit: Duration, completion: &Completion) {
        // A limit beyond the range of the clock needs no timer.
        if Instant::now().checked_add(limit).is_none() {
            return;
        }
        match clock::sleep(limit) {
            // Unconstrained, because a callback that uses up its budget must also time out.
            Ok(sleep) => {
                self.rare_mut().timeout = Some(Box::pin(coop::unconstrained(sleep)));
            }
            Err(no_timer) => self.finish(Outcome::Error(&no_timer), completion),
        }
    }

    #[inline]
    fn poll_callback(&mut self, cx: &mut Context<'_>, completion: &Completion) -> Poll<()> {
        let polled = {
            let Some(entry) = &mut self.entry else {
                return Poll::Ready(());
            };
            #[cfg(feature = "tracing")]
            let _span = entry.header.span().map(|span| span.clone().entered());
            let _entered = current::enter(&mut self.current);
            catch_panic(|| entry.as_mut().poll_callback(cx, completion))
        };
        match polled {
            Ok(Poll::Pending) => return self.poll_timeout(cx, completion),
            Ok(Poll::Ready(Ok(()))) => self.finish(Outcome::Ok, completion),
            Ok(Poll::Ready(Err(Failure::Lost))) => self.lose(LostReason::NoRuntime),
            Ok(Poll::Ready(Err(Failure::Error(error)))) => {
                self.finish(Outcome::Error(error.as_ref()), completion);
                drop_catching_panic::<BoxError>(error);
            }
            Err(message) => self.finish(Outcome::Panicked(&message), completion),
        }
        Poll::Ready(())
    }

    fn poll_timeout(&mut self, cx: &mut Context<'_>, completion: &Completion) -> Poll<()> {
        let timeout = self.rare.as_mut().and_then(|rare| rare.timeout.as_mut());
        let Some(timeout) = timeout else {
            return Poll::Pending;
        };
        ready!(timeout.as_mut().poll(cx));
        let own = self.entry.as_ref().and_then(|entry| entry.header.timeout());
        let limit = own.or(self.scope().options.timeout).unwrap_or_default();
        self.finish(Outcome::TimedOut(limit), completion);
        Poll::Ready(())
    }

    /// Reports how the callback ended.
    #[inline]
    fn finish(&mut self, outcome: Outcome<'_>, completion: &Completion) {
        let is_ok = matches!(outcome, Outcome::Ok);
        if !is_ok || self.scope().interest.timing {
            self.report_end(outcome, completion);
        }
        self.end(match is_ok {
            true => Disposition::Succeeded,
            false => Disposition::Failed,
        });
    }

    fn report_end(&mut self, outcome: Outcome<'_>, completion: &Completion) {
        let Some(entry) = &self.entry else { return };
        let scope = self.scope();
        let times = self.started.map(|started| {
            let queue_time = scope.queue_time(&entry.header, completion, started);
            (queue_time, started.elapsed())
        });
        let (queue_time, run_time) = times.unwrap_or_default();
        let finished = Finished {
            outcome,
            queue_time,
            run_time,
        };
        let info = scope.callback_info(&entry.header);
        scope.options.observers.finished(&info, &finished);
        if !matches!(outcome, Outcome::Ok) {
            self.note_failure(&outcome);
        }
    }

    fn note_failure(&mut self, failure: &impl fmt::Display) {
        let phase = self.entry.as_ref().map(|entry| entry.header.phase);
        if phase == Some(Phase::Before) {
            // The text of an error is user code.
            let text = catch_panic(|| failure.to_string());
            self.rare_mut().failure = Some(text.unwrap_or_else(|panic| panic));
        }
    }

    /// Ends a callback that an earlier failure keeps from running.
    pub(super) fn skip(&mut self, completion: &Completion) {
        if let Some(entry) = &self.entry {
            let info = self.scope().callback_info(&entry.header);
            self.scope().options.observers.skipped(&info, completion);
            self.end(Disposition::Skipped);
        }
    }

    fn lose(&mut self, reason: LostReason) {
        if let Some(entry) = &self.entry {
            let scope = self.scope();
            let info = scope.callback_info(&entry.header);
            scope.options.observers.lost(&info, reason);
            self.note_failure(&reason);
            self.end(Disposition::Lost);
        }
    }

    /// Drops the callback inside its scope, because what it captured may defer something. Its end
    /// is counted after that, so that nothing of it is left when a drain ends.
    #[inline]
    fn end(&mut self, disposition: Disposition) {
        let Some(entry) = self.entry.take() else {
            return;
        };
        #[cfg(feature = "metrics")]
        crate::observe::metrics::ended(self.stage == Stage::Running);
        self.stage = Stage::Ended(entry.header.phase, disposition);
        if let Some(rare) = &mut self.rare {
            rare.timeout = None;
        }
        {
            let _entered = current::enter(&mut self.current);
            drop_catching_panic(entry);
        }
        if let Some(rare) = &mut self.rare {
            (rare.claim, rare.granted) = (None, None);
        }
    }

    fn rare_mut(&mut self) -> &mut RareFields {
        self.rare.get_or_insert_default()
    }

    /// Ends a callback that cannot continue, and counts its end.
    pub(super) fn abandon(&mut self) {
        self.lose(match self.stage {
            Stage::Running => LostReason::Interrupted,
            _ => LostReason::NoRuntime,
        });
        if let Some(ended) = self.take_ended() {
            self.scope().advance(Some(ended), Then::Leave);
        }
    }
}

impl Drop for Execution {
    fn drop(&mut self) {
        self.abandon();
    }
}

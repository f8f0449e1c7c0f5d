//! One callback's turn: judged, run within its limits, reported.

use std::{
    fmt,
    future::Future,
    panic::Location,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use crate::{
    callback::{
        entry::BoxEntry,
        output::{BoxError, Failure},
    },
    clock::{self, Instant},
    completion::Completion,
    drain::tracker::End,
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

/// A callback whose turn it is. It leaves by exactly one of the exits; dropped before that, it
/// was lost.
pub(super) struct Turn<'a> {
    scope: &'a Arc<Scope>,
    completion: &'a Completion,
    entry: Option<BoxEntry>,
    started: Option<Instant>,
    /// How it ended.
    end: Option<End>,
    /// What it failed with, where a response becomes a failure because of it.
    failure: Option<Box<str>>,
}

impl<'a> Turn<'a> {
    pub(super) fn new(scope: &'a Arc<Scope>, completion: &'a Completion, entry: BoxEntry) -> Self {
        scope.announce(&entry);
        Self {
            scope,
            completion,
            entry: Some(entry),
            started: None,
            end: None,
            failure: None,
        }
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
        match self.end {
            Some(End::Failed | End::Lost) => Some(self.failure.take().unwrap_or_default().into()),
            _ => None,
        }
    }

    /// From the verdict to the report.
    pub(super) async fn run(&mut self) {
        if self.is_allowed() {
            self.start();
            match self.timeout() {
                None => (&mut *self).await,
                Some(limit) => Box::pin(self.run_for(limit)).await,
            }
        }
    }

    async fn run_for(&mut self, limit: Duration) {
        match clock::timeout(limit, &mut *self) {
            Ok(timeout) => {
                if timeout.await.is_err() {
                    self.finish(Outcome::TimedOut(limit));
                }
            }
            Err(no_timer) => self.finish(Outcome::Error(&no_timer)),
        }
    }

    fn is_allowed(&mut self) -> bool {
        let options = &self.scope.options;
        let Some(entry) = &self.entry else {
            return false;
        };
        match entry
            .header
            .rule
            .allows(self.completion, options.rule.as_ref())
        {
            Ok(true) => true,
            Ok(false) => {
                options
                    .observers
                    .skipped(&self.scope.info(&entry.header), self.completion);
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
                    .finished(&self.scope.info(&entry.header), &finished);
                self.note_failure(&finished.outcome);
                self.leave(End::Failed);
                false
            }
        }
    }

    fn timeout(&self) -> Option<Duration> {
        let own = self.entry.as_ref().and_then(|entry| entry.header.timeout);
        own.or(self.scope.options.timeout)
    }

    fn start(&mut self) {
        let Some(entry) = &self.entry else { return };
        let start = Instant::now();
        self.started = Some(start);
        self.scope.options.tracker.started();
        self.scope.options.observers.started(
            &self.scope.info(&entry.header),
            self.scope.waited(&entry.header, self.completion, start),
        );
    }

    fn finish(&mut self, outcome: Outcome<'_>) {
        let (Some(entry), Some(start)) = (&self.entry, self.started) else {
            return;
        };
        let is_ok = matches!(outcome, Outcome::Ok);
        let observers = &self.scope.options.observers;
        let info = self.scope.info(&entry.header);
        if !is_ok || observers.hear_success(&info) {
            let finished = Finished {
                outcome,
                waited: self.scope.waited(&entry.header, self.completion, start),
                took: start.elapsed(),
            };
            observers.finished(&info, &finished);
        }
        if !is_ok {
            self.note_failure(&outcome);
        }
        self.leave(if is_ok { End::Ran } else { End::Failed });
    }

    fn note_failure(&mut self, why: &impl fmt::Display) {
        if self
            .entry
            .as_ref()
            .is_some_and(|entry| entry.header.phase == Phase::Before)
        {
            // The text of an error is user code.
            let text = isolate(|| why.to_string());
            self.failure = Some(text.unwrap_or_else(|panic| panic).into());
        }
    }

    fn lose(&mut self, reason: LostReason) {
        if let Some(entry) = &self.entry {
            let info = self.scope.info(&entry.header);
            self.scope.options.observers.lost(&info, reason);
            self.note_failure(&reason);
            self.leave(End::Lost);
        }
    }

    /// Nothing of the callback is left when the tracker is told: whoever waits until idle may
    /// rely on what it captured being gone.
    fn leave(&mut self, end: End) {
        let Some(entry) = self.entry.take() else {
            return;
        };
        self.end = Some(end);
        self.scope.ended(entry.header.id);
        {
            // What the callback captured may defer something when it is dropped, as its code may.
            let mut current = Some(Current::driven(self.scope.clone()));
            let _entered = current::enter(&mut current);
            drop_isolated(entry);
        }
        let tracker = &self.scope.options.tracker;
        if self.started.is_some() {
            tracker.ended(end);
        } else {
            tracker.dropped(end);
        }
    }
}

impl Future for Turn<'_> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        let Some(entry) = &mut this.entry else {
            return Poll::Ready(());
        };
        let completion = this.completion;
        let polled = {
            // Left before anybody is told of the end: who waits for it may rely on the span
            // being closed.
            #[cfg(feature = "tracing")]
            let _span = this
                .scope
                .info(&entry.header)
                .span
                .map(|span| span.clone().entered());
            let mut current = Some(Current::driven(this.scope.clone()));
            let _entered = current::enter(&mut current);
            isolate(|| entry.as_mut().poll_callback(cx, completion))
        };
        match polled {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(Ok(()))) => this.finish(Outcome::Ok),
            Ok(Poll::Ready(Err(Failure::Lost))) => this.lose(LostReason::NoRuntime),
            Ok(Poll::Ready(Err(Failure::Error(error)))) => {
                this.finish(Outcome::Error(error.as_ref()));
                drop_isolated::<BoxError>(error);
            }
            Err(message) => this.finish(Outcome::Panicked(&message)),
        }
        Poll::Ready(())
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.lose(if self.started.is_some() {
            LostReason::Interrupted
        } else {
            LostReason::NoRuntime
        });
    }
}

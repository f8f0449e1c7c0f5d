//! The right to decide a scope: owned, passed on, and used up exactly once.

use std::{sync::Arc, time::Duration};

use http::StatusCode;

use super::{
    Unfinished,
    before::{self, BeforeResponseFailed},
};
use crate::{
    completion::{Completion, Delivery, Level},
    scope::{
        Scope,
        current::{self, Current, Entered},
    },
    sent::delivery::DeliveryOutcome,
};

/// Whoever owns this decides the scope, by dropping it; what it says then is the verdict.
///
/// The response future has it first and hands it to the response body. There is one, it can't be
/// copied, and its drop is the only place that decides: so a scope is decided exactly once, and
/// however a response ends, it is.
pub(crate) struct Completer {
    /// There until the scope is decided, but for the time during which it is entered.
    scope: Option<Current>,
    pub(crate) verdict: Verdict,
}

/// What the layer knows of the end of a response.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Verdict {
    pub(crate) status: Option<StatusCode>,
    pub(crate) success: bool,
    pub(crate) delivery: Delivery,
    pub(crate) bytes: u64,
}

impl Verdict {
    fn at(self, level: Level, elapsed: Duration) -> Completion {
        Completion {
            status: self.status,
            success: self.success,
            delivery: self.delivery,
            level,
            bytes: self.bytes,
            elapsed,
        }
    }
}

impl Completer {
    /// Until it is told otherwise, there was no response.
    #[inline]
    pub(crate) fn new(scope: Arc<Scope>) -> Self {
        Self {
            scope: Some(Current::driven(scope)),
            verdict: Verdict {
                status: None,
                success: false,
                delivery: Delivery::NoResponse,
                bytes: 0,
            },
        }
    }

    #[inline]
    pub(crate) fn scope(&self) -> Option<&Arc<Scope>> {
        self.scope.as_ref().map(|current| &current.scope)
    }

    /// Code belongs to the scope while the guard lives.
    #[inline]
    pub(crate) fn enter(&mut self) -> Entered<'_> {
        current::enter(&mut self.scope)
    }

    /// Decides the scope and runs its callbacks in the calling task.
    ///
    /// Dropped half-way, it has decided all the same, and the runner reports what is left.
    pub(crate) async fn complete_here(mut self) {
        let Some(Current { scope, .. }) = self.scope.take() else {
            return;
        };
        let start = scope.decide(self.handed_over(&scope));
        super::run_here(&scope, start).await;
    }

    /// Whether the response has to wait; if not, it may go out from now on.
    #[inline]
    pub(crate) fn release_head(&self) -> bool {
        self.scope().is_some_and(|scope| scope.release_head())
    }

    /// Runs what the response has to wait for, in the calling task. The verdict is that of the
    /// response if it goes out; it becomes a failure when something fails.
    ///
    /// Dropped half-way, what is running is cut off, and the rest is lost or moves to a task; the
    /// scope is decided after that.
    pub(crate) async fn prepare(self, unfinished: Unfinished) -> Prepared {
        let mut preparing = Preparing::new(self, unfinished);
        let outcome = preparing.run().await;
        preparing.finish(outcome)
    }

    fn handed_over(&self, scope: &Scope) -> Completion {
        self.verdict.at(Level::HandedOver, scope.opened.elapsed())
    }
}

impl Drop for Completer {
    fn drop(&mut self) {
        let Some(Current { mut scope, .. }) = self.scope.take() else {
            return;
        };
        if scope.release_head() {
            // Nobody has run what the response should have waited for: there is none, or whoever
            // ran it was cut off.
            let completer = Self {
                scope: Some(Current::driven(scope.clone())),
                verdict: self.verdict,
            };
            let mut preparing = Preparing::new(completer, Unfinished::IsLost);
            super::Place::of(&scope, scope.runtime()).spawn(async move {
                let outcome = preparing.run().await;
                drop(preparing.finish(outcome));
            });
            return;
        }
        // Nothing was deferred, and nobody is left who could: there is nothing to decide.
        if scope.is_unused() {
            return;
        }
        let Some(response) = scope.response.clone() else {
            let completion = self.handed_over(&scope);
            let start = scope.decide_and_hand_over(completion);
            super::hand_over(scope, start);
            return;
        };
        let held = Held {
            scope: Some(scope),
            verdict: self.verdict,
            outcome: DeliveryOutcome::Aborted { bytes: 0 },
        };
        response.on_delivery(move |outcome| held.settle(outcome));
    }
}

/// What came of the first phase, and the right to decide what follows.
pub(crate) type Prepared = (Completer, Result<(), BeforeResponseFailed>);

/// The first phase on its way.
struct Preparing {
    // Dropped before the completer, which would start it again.
    unfinished: before::Unfinished,
    completer: Option<Completer>,
}

impl Preparing {
    fn new(completer: Completer, unfinished: Unfinished) -> Self {
        let scope = match unfinished {
            Unfinished::IsLost => completer.scope().cloned(),
            Unfinished::MovesToATask => None,
        };
        Self {
            unfinished: before::Unfinished::new(scope),
            completer: Some(completer),
        }
    }

    async fn run(&mut self) -> Result<(), BeforeResponseFailed> {
        let Some(completer) = &self.completer else {
            return Ok(());
        };
        let Some(scope) = completer.scope().cloned() else {
            return Ok(());
        };
        let mut verdict = completer.verdict;
        if verdict.delivery != Delivery::NoResponse {
            verdict.delivery = Delivery::Pending;
        }
        let completion = verdict.at(Level::HandedOver, scope.opened.elapsed());
        before::run(&scope, &completion).await
    }

    fn finish(mut self, outcome: Result<(), BeforeResponseFailed>) -> Prepared {
        self.unfinished.finish();
        let Some(mut completer) = self.completer.take() else {
            unreachable!("it finishes once");
        };
        if outcome.is_err() {
            let scope = completer.scope.as_ref();
            let failure = scope.map(|current| current.scope.options.failure_status());
            let verdict = &mut completer.verdict;
            verdict.success = false;
            verdict.status = verdict.status.and(failure);
        }
        (completer, outcome)
    }
}

/// A verdict that waits until the transport has the response; like [`Completer`], it decides
/// when it is dropped.
struct Held {
    /// Gone when it has been decided.
    scope: Option<Arc<Scope>>,
    verdict: Verdict,
    outcome: DeliveryOutcome,
}

impl Held {
    fn settle(mut self, outcome: DeliveryOutcome) {
        self.outcome = outcome;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let Some(mut scope) = self.scope.take() else {
            return;
        };
        let verdict = &mut self.verdict;
        match self.outcome {
            DeliveryOutcome::Flushed { bytes } => verdict.bytes = bytes,
            DeliveryOutcome::Aborted { bytes } => {
                verdict.bytes = bytes;
                // What went wrong before the connection did is the better explanation.
                if verdict.delivery == Delivery::Sent {
                    verdict.delivery = Delivery::Aborted;
                }
            }
        }
        let completion = verdict.at(Level::Sent, scope.opened.elapsed());
        let start = scope.decide_and_hand_over(completion);
        super::hand_over(scope, start);
    }
}

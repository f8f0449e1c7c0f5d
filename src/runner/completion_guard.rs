//! The right to decide a scope: owned, passed on, and used exactly once. Its owner also runs the
//! callbacks before the response.

use std::{panic::Location, sync::Arc, time::Duration};

use http::StatusCode;
use tokio::{sync::oneshot, task::coop};

use super::{OnDrop, before::BeforeResponseFailed, execution::Execution};
use crate::{
    completion::{Completion, Delivery, Level},
    scope::{
        Current, Scope, Then,
        current::{self, Entered},
        spawn::spawn,
    },
    sent::delivery::DeliveryOutcome,
};

/// A guard that decides a scope when it is dropped, with its verdict at that time.
///
/// The response future has it first and passes it to the response body. It cannot be copied, and
/// its drop is the only place that decides, so each scope is decided exactly once, however the
/// response ends.
pub(crate) struct CompletionGuard {
    /// `None` after the decision, and while code runs that has it as the current scope.
    scope: Option<Current>,
    pub(crate) verdict: Verdict,
}

/// The end of a response as the layer knows it.
#[derive(Clone, Debug)]
pub(crate) struct Verdict {
    pub(crate) status: Option<StatusCode>,
    pub(crate) grpc_status: Option<i32>,
    pub(crate) success: bool,
    pub(crate) delivery: Delivery,
    pub(crate) bytes: u64,
    /// The body was produced to its end. Implied by [`Delivery::Complete`].
    pub(crate) body_finished: bool,
    pub(crate) body_error: Option<Arc<str>>,
}

impl Verdict {
    pub(super) fn at(self, level: Level, elapsed: Duration) -> Completion {
        Completion {
            status: self.status,
            grpc_status: self.grpc_status,
            success: self.success,
            delivery: self.delivery,
            level,
            bytes: self.bytes,
            elapsed,
            body_finished: self.body_finished,
            body_error: self.body_error,
        }
    }
}

impl CompletionGuard {
    /// Creates a guard whose verdict is that there was no response.
    #[inline]
    pub(crate) fn new(scope: Arc<Scope>) -> Self {
        Self {
            scope: Some(Current::polled(scope)),
            verdict: Verdict {
                status: None,
                grpc_status: None,
                success: false,
                delivery: Delivery::NoResponse,
                bytes: 0,
                body_finished: false,
                body_error: None,
            },
        }
    }

    #[inline]
    pub(crate) fn scope(&self) -> Option<&Arc<Scope>> {
        self.scope.as_ref().map(|current| &current.scope)
    }

    /// Makes the scope current until the returned guard is dropped.
    #[inline]
    pub(crate) fn enter(&mut self) -> Entered<'_> {
        current::enter(&mut self.scope)
    }

    /// Decides the scope and runs its callbacks in the calling task.
    ///
    /// If this future is dropped midway, the rest moves to a task.
    pub(crate) async fn complete_here(mut self) {
        if let Some(Current { scope, .. }) = self.scope.take() {
            let start = scope.decide(self.handed_off(&scope));
            super::run_here(scope, start).await;
        }
    }

    /// Releases the head of the response. Returns `true` if callbacks must run before it.
    #[inline]
    pub(crate) fn release_head(&self) -> bool {
        self.scope().is_some_and(|scope| scope.release_head())
    }

    /// Makes the unit of work a failure, because a callback before the response did not succeed.
    pub(super) fn fail(&mut self) {
        self.verdict.success = false;
        let Some(options) = self.scope().map(|scope| &scope.options) else {
            return;
        };
        let (status, grpc_status) = (options.failure_status(), options.failure_grpc_status());
        // There may be no response.
        if self.verdict.status.is_some() {
            self.verdict.status = Some(status);
            self.verdict.grpc_status = grpc_status;
        }
    }

    fn handed_off(&self, scope: &Scope) -> Completion {
        let verdict = self.verdict.clone();
        verdict.at(Level::HandedOff, scope.opened.elapsed())
    }
}

impl Drop for CompletionGuard {
    fn drop(&mut self) {
        let Some(Current { scope, .. }) = self.scope.take() else {
            return;
        };
        if scope.release_head() {
            // There is no response, so these callbacks have not run yet.
            let guard = Self {
                scope: Some(Current::polled(scope)),
                verdict: self.verdict.clone(),
            };
            drop(run_before_on_task(guard));
            return;
        }
        if scope.is_unused() {
            return;
        }
        let Some(response) = scope.response.clone() else {
            let start = scope.decide(self.handed_off(&scope));
            super::start(scope, start);
            return;
        };
        let pending = PendingFlush {
            scope: Some(scope),
            verdict: self.verdict.clone(),
            outcome: DeliveryOutcome::Aborted { bytes: 0 },
        };
        response.on_delivery(move |outcome| pending.flushed(outcome));
    }
}

/// A verdict that waits until the connection has flushed the response. Decides the scope when it is
/// dropped.
struct PendingFlush {
    /// `None` after the decision.
    scope: Option<Arc<Scope>>,
    verdict: Verdict,
    outcome: DeliveryOutcome,
}

impl PendingFlush {
    fn flushed(mut self, outcome: DeliveryOutcome) {
        self.outcome = outcome;
    }
}

impl Drop for PendingFlush {
    fn drop(&mut self) {
        let Some(scope) = self.scope.take() else {
            return;
        };
        let verdict = &mut self.verdict;
        match self.outcome {
            DeliveryOutcome::Flushed { bytes } => verdict.bytes = bytes,
            DeliveryOutcome::Aborted { bytes } => {
                verdict.bytes = bytes;
                // An earlier failure explains more than the end of the connection.
                if verdict.delivery == Delivery::Complete {
                    verdict.delivery = Delivery::Aborted;
                    verdict.body_finished = true;
                }
            }
        }
        let completion = verdict.clone().at(Level::Flushed, scope.opened.elapsed());
        let start = scope.decide(completion);
        super::start(scope, start);
    }
}

/// The right to decide the scope, and the outcome of the callbacks before the response.
pub(crate) type BeforeResult = (CompletionGuard, Result<(), BeforeResponseFailed>);

/// Runs the callbacks before the response in the calling task.
///
/// If it is dropped midway, the running callback is lost and the unit of work becomes a failure.
pub(crate) async fn run_before(guard: CompletionGuard, on_drop: OnDrop) -> BeforeResult {
    let mut run = BeforeRun::new(guard, on_drop, None);
    let outcome = run.run().await;
    run.finish(outcome)
}

/// Like [`run_before`], but on a task, which continues if the client disconnects.
///
/// The receiver gets the result even if the task is dropped.
pub(crate) fn run_before_on_task(guard: CompletionGuard) -> oneshot::Receiver<BeforeResult> {
    let (reply, result) = oneshot::channel();
    let scope = guard.scope().cloned();
    let mut run = BeforeRun::new(guard, OnDrop::Lose, Some(reply));
    if let Some(scope) = scope {
        let spawner = scope.options.spawn.as_ref();
        spawn(spawner, scope.runtime(), async move {
            let outcome = run.run().await;
            let reply = run.reply.take();
            let result = run.finish(outcome);
            if let Some(reply) = reply {
                // Without a receiver, the guard decides the scope.
                let _ = reply.send(result);
            }
        });
    }
    result
}

/// The phase before the response.
struct BeforeRun {
    /// `Some` until the phase has ended.
    guard: Option<CompletionGuard>,
    on_drop: OnDrop,
    reply: Option<oneshot::Sender<BeforeResult>>,
    /// The name and location of the callback that is running.
    running: Option<(Option<String>, &'static Location<'static>)>,
}

impl BeforeRun {
    fn new(
        guard: CompletionGuard,
        on_drop: OnDrop,
        reply: Option<oneshot::Sender<BeforeResult>>,
    ) -> Self {
        Self {
            guard: Some(guard),
            on_drop,
            reply,
            running: None,
        }
    }

    fn scope(&self) -> Option<&Arc<Scope>> {
        self.guard.as_ref()?.scope()
    }

    /// Runs the callbacks in order, until none is left or one fails. The head is released then.
    async fn run(&mut self) -> Result<(), BeforeResponseFailed> {
        let (Some(completion), Some(scope)) = (
            self.guard.as_ref().and_then(completion),
            self.scope().cloned(),
        ) else {
            return Ok(());
        };
        scope.begin_before(completion.clone());
        let mut execution = Execution::new(scope, None);
        while execution.advance(Then::TakeBefore) {
            self.running = Some(execution.name_and_location());
            execution.run(&completion).await;
            let running = self.running.take();
            if let (Some(message), Some((name, location))) = (execution.failure(), running) {
                skip_rest(execution, &completion);
                return Err(BeforeResponseFailed {
                    name,
                    location,
                    message,
                });
            }
            // As for the callbacks after the response.
            coop::consume_budget().await;
        }
        Ok(())
    }

    fn finish(mut self, outcome: Result<(), BeforeResponseFailed>) -> BeforeResult {
        let Some(mut guard) = self.guard.take() else {
            unreachable!("the phase has ended already");
        };
        if outcome.is_err() {
            guard.fail();
        }
        (guard, outcome)
    }
}

/// Returns the completion that callbacks before the response receive.
fn completion(guard: &CompletionGuard) -> Option<Completion> {
    let mut verdict = guard.verdict.clone();
    if verdict.delivery != Delivery::NoResponse {
        verdict.delivery = Delivery::Pending;
    }
    Some(verdict.at(Level::HandedOff, guard.scope()?.opened.elapsed()))
}

/// Skips the callbacks after one that has failed, and releases the head.
fn skip_rest(mut execution: Execution, completion: &Completion) {
    let failed = Completion {
        success: false,
        ..completion.clone()
    };
    while execution.advance(Then::TakeBefore) {
        execution.skip(&failed);
    }
}

impl Drop for BeforeRun {
    fn drop(&mut self) {
        let Some(mut guard) = self.guard.take() else {
            return;
        };
        let running = self.running.take();
        if running.is_none() && self.on_drop == OnDrop::Respawn {
            // No callback was interrupted: the guard runs the rest on a task.
            return;
        }
        let Some(scope) = guard.scope().cloned() else {
            return;
        };
        let mut execution = Execution::new(scope, None);
        let mut lost = running;
        if self.on_drop == OnDrop::Lose {
            while execution.advance(Then::TakeBefore) {
                lost = lost.or_else(|| Some(execution.name_and_location()));
                execution.abandon();
            }
        } else if let Some(completion) = completion(&guard) {
            skip_rest(execution, &completion);
        }
        let outcome = match lost {
            None => Ok(()),
            Some((name, location)) => {
                guard.fail();
                Err(BeforeResponseFailed {
                    name,
                    location,
                    message: "lost: the task that ran it was dropped".to_owned(),
                })
            }
        };
        if let Some(reply) = self.reply.take() {
            let _ = reply.send((guard, outcome));
        }
    }
}

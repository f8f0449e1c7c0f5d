//! Runs the callbacks before the response.

use std::{fmt, future::Future, panic::Location, sync::Arc};

use tokio::{sync::oneshot, task::coop};

use super::{OnDrop, completion_guard::CompletionGuard, execution::Execution};
use crate::{
    completion::{Completion, Delivery, Level},
    observe::text::OneLine,
    scope::{Scope, Then, spawn::spawn},
};

/// The failure of a callback that was registered with
/// [`before_response`](crate::before_response), and the reason why the response failed.
///
/// It is in the extensions of the response that replaces the handler's, so that a layer outside of
/// the [`DeferLayer`](crate::DeferLayer) can render an error page:
///
/// ```
/// use axum::{Router, response::{IntoResponse, Response}, routing::get};
/// use axum_defer::{BeforeResponseFailed, DeferLayer, before_response};
/// use tower::util::MapResponseLayer;
///
/// async fn place_order() -> &'static str {
///     before_response(async { Err("the database is gone") }).name("commit");
///     "thank you"
/// }
///
/// fn error_page(response: Response) -> Response {
///     match response.extensions().get::<BeforeResponseFailed>() {
///         Some(failed) => {
///             eprintln!("{failed}");
///             (response.status(), "please try again").into_response()
///         }
///         None => response,
///     }
/// }
///
/// let app: Router = Router::new()
///     .route("/", get(place_order))
///     .layer(DeferLayer::new())
///     .layer(MapResponseLayer::new(error_page));
/// ```
///
/// ```
/// use axum::response::Response;
/// use axum_defer::BeforeResponseFailed;
///
/// /// Describes the failure, for the log of an outer layer.
/// fn reason(response: &Response) -> Option<String> {
///     let failed = response.extensions().get::<BeforeResponseFailed>()?;
///     let name = failed.name().unwrap_or("unnamed");
///     Some(format!("{name} at {}: {}", failed.location(), failed.message()))
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BeforeResponseFailed {
    name: Option<String>,
    location: &'static Location<'static>,
    message: String,
}

impl BeforeResponseFailed {
    /// Returns the name of the callback.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Returns the location of the call of `before_response`.
    pub fn location(&self) -> &'static Location<'static> {
        self.location
    }

    /// Returns the failure as an [`Outcome`](crate::Outcome) displays it: `error: no luck`,
    /// `panicked: no luck`, `timed out after 5s`.
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for BeforeResponseFailed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("before the response, ")?;
        if let Some(name) = &self.name {
            write!(formatter, "{} ", OneLine(name))?;
        }
        write!(formatter, "({}) {}", self.location, self.message)
    }
}

impl std::error::Error for BeforeResponseFailed {}

/// The right to decide the scope, and the outcome of the callbacks before the response.
pub(crate) type BeforeResult = (CompletionGuard, Result<(), BeforeResponseFailed>);

/// Runs the callbacks before the response in the calling task.
///
/// If it is dropped midway, the running callback is lost and the unit of work becomes a failure.
pub(crate) async fn run_here(guard: CompletionGuard, on_drop: OnDrop) -> BeforeResult {
    let mut run = BeforeRun::new(guard, on_drop, None);
    let outcome = run.run().await;
    run.finish(outcome)
}

/// Like [`run_here`], but on a task, which continues if the client leaves.
///
/// The receiver gets the result even if the task is dropped.
pub(crate) fn run_on_task(guard: CompletionGuard) -> oneshot::Receiver<BeforeResult> {
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
    fn run(&mut self) -> impl Future<Output = Result<(), BeforeResponseFailed>> + Send + '_ {
        async move {
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

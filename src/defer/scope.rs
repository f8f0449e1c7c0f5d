//! Scopes for units of work that are not HTTP requests.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    process::ExitCode,
    sync::Arc,
};

use crate::{
    completion::{Completion, Delivery, Level},
    runner::{
        OnDrop,
        completion_guard::{CompletionGuard, run_before},
        scoped::Scoped,
    },
    scope::{Current, Scope, current, options::Options},
};

/// Runs a unit of work in a scope, then runs its callbacks, and returns its output.
///
/// For a command line tool, a job from a queue, or a scheduled task. The output decides which
/// callbacks run (see [`ScopeOutput`]). Callbacks run in the calling task. If this future is dropped,
/// the running callback is interrupted, and the rest moves to a task. If it is dropped before
/// `future` is ready, or `future` panics, callbacks run as for a request without a response.
///
/// There are no limits and no observers. For those, see
/// [`DeferLayer::scope`](crate::DeferLayer::scope).
///
/// ```
/// use std::process::ExitCode;
/// use axum_defer::{defer, scope};
///
/// #[tokio::main]
/// async fn main() -> ExitCode {
///     scope(async {
///         defer(async { println!("succeeded") });
///         defer(async { println!("ended") }).always();
///         ExitCode::SUCCESS
///     })
///     .await
/// }
/// ```
pub async fn scope<F>(future: F) -> F::Output
where
    F: Future<Output: ScopeOutput>,
{
    run(Arc::new(Options::for_one_scope()), future).await
}

pub(crate) async fn run<F>(options: Arc<Options>, future: F) -> F::Output
where
    F: Future<Output: ScopeOutput>,
{
    let scope = open(options);
    let mut unit = pin!(Scoped::new(CompletionGuard::new(scope), future));
    let output = poll_fn(|cx| unit.as_mut().poll_in_scope(cx)).await;
    unit.as_mut().drop_future();
    if let Some(mut guard) = unit.take_guard() {
        guard.verdict.success = output.is_success();
        guard.verdict.delivery = Delivery::Complete;
        if guard.release_head() {
            let before = Box::pin(run_before(guard, OnDrop::Respawn));
            (guard, _) = before.await;
        }
        guard.complete_here().await;
    }
    output
}

/// Opens a scope. If the calling code belongs to a request, the server's drain waits for this scope,
/// too.
fn open(options: Arc<Options>) -> Arc<Scope> {
    let parent = current::get();
    let scope = Scope::open(options, None, || None, None, parent);
    for ancestor in scope.ancestors() {
        if let Some(response) = &ancestor.scope.response {
            response.drain_with(&scope.options.store);
        }
    }
    scope
}

/// Opens a scope whose unit of work has succeeded.
pub(super) fn open_ended() -> Current {
    let scope = open(Arc::new(Options::for_one_scope()));
    let completion = Completion {
        status: None,
        grpc_status: None,
        success: true,
        delivery: Delivery::Complete,
        level: Level::HandedOff,
        bytes: 0,
        elapsed: scope.opened.elapsed(),
        body_finished: true,
        body_error: None,
    };
    scope.release_head();
    let start = scope.decide(completion);
    debug_assert!(start.is_none(), "nothing is registered");
    Current::external(scope)
}

/// The output of a [`scope`], which distinguishes success from failure.
///
/// `()` is a success, and so are `Ok` and [`ExitCode::SUCCESS`].
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// use axum_defer::{ScopeOutput, defer, scope};
///
/// struct Imported {
///     rows: u32,
///     refused: u32,
/// }
///
/// impl ScopeOutput for Imported {
///     fn is_success(&self) -> bool {
///         self.refused == 0
///     }
/// }
///
/// let imported = scope(async {
///     defer(async { unreachable!("a row was refused") });
///     Imported { rows: 9, refused: 1 }
/// })
/// .await;
/// assert_eq!(imported.rows, 9);
/// # }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not distinguish success from failure",
    label = "this unit of work returns `{Self}`",
    note = "return `()`, a `Result`, or an `ExitCode`, or implement `ScopeOutput` for it"
)]
pub trait ScopeOutput {
    /// Returns `true` if the unit of work succeeded.
    fn is_success(&self) -> bool;
}

// Not for `!`: stable Rust can only name it by a projection, which would overlap with the
// implementations of other crates.
impl ScopeOutput for () {
    fn is_success(&self) -> bool {
        true
    }
}

impl<T, E> ScopeOutput for Result<T, E> {
    fn is_success(&self) -> bool {
        self.is_ok()
    }
}

impl ScopeOutput for ExitCode {
    fn is_success(&self) -> bool {
        *self == ExitCode::SUCCESS
    }
}

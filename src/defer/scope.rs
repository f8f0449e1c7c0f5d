//! Units of work that are no HTTP requests.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    process::ExitCode,
    sync::Arc,
};

use crate::{
    completion::Delivery,
    runner::{Unfinished, completer::Completer, scoped::Scoped},
    scope::{Scope, options::Options},
};

/// Runs a unit of work in a scope of its own, then runs and awaits what it deferred, then returns
/// its output.
///
/// For a command line tool, a job from a queue, a scheduled task. The output decides which
/// callbacks run: see [`UnitOutput`]. Callbacks run in the calling task, and the one that is
/// running when this future is dropped is cut off; what it had not started then moves to a task.
/// When this future is dropped before `future` is ready, or `future` panics, callbacks run as for
/// a request without a response.
///
/// There is no limit and no observer here; for those, see
/// [`DeferLayer::scope`](crate::DeferLayer::scope).
///
/// ```
/// use std::process::ExitCode;
/// use axum_defer::{defer, scope};
///
/// #[tokio::main]
/// async fn main() -> ExitCode {
///     scope(async {
///         defer(async { println!("all is well") });
///         defer(async { println!("whatever happened") }).always();
///         ExitCode::SUCCESS
///     })
///     .await
/// }
/// ```
pub async fn scope<F>(future: F) -> F::Output
where
    F: Future<Output: UnitOutput>,
{
    run(Arc::default(), future).await
}

pub(crate) async fn run<F>(options: Arc<Options>, future: F) -> F::Output
where
    F: Future<Output: UnitOutput>,
{
    let scope = Scope::open(options, None, || None, None);
    let mut unit = pin!(Scoped::new(Completer::new(scope), future));
    let output = poll_fn(|cx| unit.as_mut().poll_inside(cx)).await;
    unit.as_mut().drop_future();
    if let Some(mut completer) = unit.take_completer() {
        completer.verdict.success = output.is_success();
        completer.verdict.delivery = Delivery::Sent;
        if completer.release_head() {
            let preparing = Box::pin(completer.prepare(Unfinished::MovesToATask));
            (completer, _) = preparing.await;
        }
        completer.complete_here().await;
    }
    output
}

/// What tells success from failure in the output of a [`scope`].
///
/// `()` is a success, a `Result` is one when it is `Ok`, and an [`ExitCode`] when it is
/// [`ExitCode::SUCCESS`].
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// use axum_defer::{UnitOutput, defer, scope};
///
/// struct Imported {
///     rows: u32,
///     refused: u32,
/// }
///
/// impl UnitOutput for Imported {
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
    message = "`{Self}` does not say whether a unit of work succeeded",
    label = "this unit of work returns `{Self}`",
    note = "return `()`, a `Result` or an `ExitCode`, or implement `UnitOutput` for it"
)]
pub trait UnitOutput {
    /// Whether the unit of work succeeded.
    fn is_success(&self) -> bool;
}

// Not for `!`: stable Rust names it by a projection only, which the compiler takes for any type of
// another crate, so that none could implement this trait.
impl UnitOutput for () {
    fn is_success(&self) -> bool {
        true
    }
}

impl<T, E> UnitOutput for Result<T, E> {
    fn is_success(&self) -> bool {
        self.is_ok()
    }
}

impl UnitOutput for ExitCode {
    fn is_success(&self) -> bool {
        *self == ExitCode::SUCCESS
    }
}

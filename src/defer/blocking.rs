//! Arguments of `defer_blocking`: closures that run on Tokio's blocking pool.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::task::JoinHandle;

use crate::{
    callback::{
        deferrable::{AsClosure, AsClosureOfCompletion, Callback, ClosureCallback},
        output::{CallbackOutput, CallbackResult, Failure},
    },
    completion::Completion,
    scope::current,
};

/// The argument of [`defer_blocking`](crate::defer_blocking): a closure without arguments, or one that
/// takes the [`Completion`]. It returns `()` or `Result<(), E>`.
///
/// ```
/// use axum_defer::{CallbackOutput, DeferrableBlocking, DeferredCallback, defer_blocking};
///
/// /// Defers blocking work with the rule of this app.
/// #[track_caller]
/// fn clean_up<M, C>(work: C) -> DeferredCallback
/// where
///     C: DeferrableBlocking<M, Output: CallbackOutput>,
/// {
///     defer_blocking(work).name("clean up").always()
/// }
/// # fn handler() { clean_up(|| std::fs::remove_file("/tmp/upload")); }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be deferred as blocking work",
    label = "not a closure without arguments, or one that takes the `Completion`",
    note = "pass `|| {{ .. }}` or `|completion: Completion| {{ .. }}`; it must be `Send + 'static`",
    note = "for a future, use `defer`"
)]
pub trait DeferrableBlocking<M>: Send + 'static {
    /// The output of the closure. See [`Deferrable::Output`](crate::Deferrable::Output).
    type Output;

    #[doc(hidden)]
    fn into_callback(self) -> impl Callback + 'static
    where
        Self::Output: CallbackOutput;
}

impl<F, T> DeferrableBlocking<AsClosure> for F
where
    F: FnOnce() -> T + Send + 'static,
{
    type Output = T;

    fn into_callback(self) -> impl Callback + 'static
    where
        T: CallbackOutput,
    {
        blocking(|_| self().into_result())
    }
}

impl<F, T> DeferrableBlocking<AsClosureOfCompletion> for F
where
    F: FnOnce(Completion) -> T + Send + 'static,
{
    type Output = T;

    fn into_callback(self) -> impl Callback + 'static
    where
        T: CallbackOutput,
    {
        blocking(|completion| self(completion).into_result())
    }
}

fn blocking(
    closure: impl FnOnce(Completion) -> Result<(), Failure> + Send + 'static,
) -> impl Callback + 'static {
    ClosureCallback::new(|completion| {
        let closure = current::propagate(move || closure(completion));
        #[cfg(feature = "tracing")]
        let closure = {
            let span = tracing::Span::current();
            move || span.in_scope(closure)
        };
        Blocking {
            task: tokio::task::spawn_blocking(closure),
        }
    })
}

struct Blocking {
    task: JoinHandle<Result<(), Failure>>,
}

impl Future for Blocking {
    type Output = CallbackResult;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<CallbackResult> {
        Pin::new(&mut self.task).poll(cx).map(|joined| {
            CallbackResult(match joined {
                Ok(result) => result,
                Err(error) if error.is_panic() => {
                    std::panic::resume_unwind(error.into_panic());
                }
                Err(_cancelled) => Err(Failure::Lost),
            })
        })
    }
}

impl Drop for Blocking {
    fn drop(&mut self) {
        // A closure that is still in the queue of the pool must not start after its timeout.
        self.task.abort();
    }
}

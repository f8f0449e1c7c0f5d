//! What `defer` takes.

use std::future::Future;

use super::{
    code::{Callback, ClosureCallback, FutureCallback},
    output::CallbackOutput,
};
use crate::completion::Completion;

/// What [`defer`](crate::defer) takes.
///
/// | argument | example |
/// |---|---|
/// | a future | `async { mail().await }` |
/// | a closure that makes one | `move \|\| async move { mail(to).await }` |
/// | a closure that takes the outcome | `\|c: Completion\| async move { audit(c.status()).await }` |
///
/// The future's output is `()` or `Result<(), E>`; see [`CallbackOutput`]. A closure is called
/// when the callback's turn comes, so what it builds costs nothing when it is skipped.
///
/// The parameter `M` only tells the forms apart and is always inferred.
#[diagnostic::on_unimplemented(
    message = "`{Self}` can't be deferred",
    label = "not a future, or a closure that returns one, whose output is `()` or `Result<(), E>`",
    note = "nobody waits for its value: throw it away with a `;`, or with `.map(drop)` to keep the error",
    note = "pass an `async {{ .. }}` block, a closure `|| async {{ .. }}`, or a closure `|completion: Completion| async {{ .. }}`; it must be `Send + 'static`",
    note = "for a plain closure that blocks, use `defer_blocking`"
)]
pub trait Deferrable<M>: Send + 'static {
    #[doc(hidden)]
    fn into_callback(self) -> impl Callback + 'static;
}

#[doc(hidden)]
#[derive(Debug)]
pub struct AsFuture;
#[doc(hidden)]
#[derive(Debug)]
pub struct AsClosure;
#[doc(hidden)]
#[derive(Debug)]
pub struct AsClosureOfCompletion;

impl<F> Deferrable<AsFuture> for F
where
    F: Future<Output: CallbackOutput> + Send + 'static,
{
    fn into_callback(self) -> impl Callback + 'static {
        FutureCallback { future: self }
    }
}

impl<F, Fut> Deferrable<AsClosure> for F
where
    F: FnOnce() -> Fut + Send + 'static,
    Fut: Future<Output: CallbackOutput> + Send + 'static,
{
    fn into_callback(self) -> impl Callback + 'static {
        ClosureCallback::new(|_| self())
    }
}

impl<F, Fut> Deferrable<AsClosureOfCompletion> for F
where
    F: FnOnce(Completion) -> Fut + Send + 'static,
    Fut: Future<Output: CallbackOutput> + Send + 'static,
{
    fn into_callback(self) -> impl Callback + 'static {
        ClosureCallback::new(self)
    }
}

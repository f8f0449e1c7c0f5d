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
/// when the callback's turn comes, so what it builds costs nothing when it is skipped. The type of
/// its argument has to be written: `|c: Completion|`, and not `|c|`.
///
/// The parameter `M` only tells the forms apart and is always inferred.
///
/// ```
/// use axum_defer::{CallbackOutput, Deferrable, DeferredCallback, defer};
///
/// /// A `defer` of the app's own, with a rule that all its mails have.
/// #[track_caller]
/// fn defer_mail<M, C>(mail: C) -> DeferredCallback
/// where
///     C: Deferrable<M, Output: CallbackOutput>,
/// {
///     defer(mail).name("mail").when(|completion| completion.is_delivered())
/// }
/// # fn handler() { defer_mail(async {}); }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` can't be deferred",
    label = "not a future, or a closure that returns one",
    note = "pass an `async {{ .. }}` block, a closure `|| async {{ .. }}`, or a closure `|completion: Completion| async {{ .. }}`; it must be `Send + 'static`",
    note = "for a plain closure that blocks, use `defer_blocking`"
)]
pub trait Deferrable<M>: Send + 'static {
    /// What the callback returns.
    ///
    /// Its bound is on [`defer`](crate::defer) and not here: so the compiler says what is wrong with
    /// an output that can't be reported, and not only that this can't be deferred.
    type Output;

    #[doc(hidden)]
    fn into_callback(self) -> impl Callback + 'static
    where
        Self::Output: CallbackOutput;
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
    F: Future + Send + 'static,
{
    type Output = F::Output;

    fn into_callback(self) -> impl Callback + 'static
    where
        Self::Output: CallbackOutput,
    {
        FutureCallback { future: self }
    }
}

impl<F, Fut> Deferrable<AsClosure> for F
where
    F: FnOnce() -> Fut + Send + 'static,
    Fut: Future + Send + 'static,
{
    type Output = Fut::Output;

    fn into_callback(self) -> impl Callback + 'static
    where
        Self::Output: CallbackOutput,
    {
        ClosureCallback::new(|_| self())
    }
}

impl<F, Fut> Deferrable<AsClosureOfCompletion> for F
where
    F: FnOnce(Completion) -> Fut + Send + 'static,
    Fut: Future + Send + 'static,
{
    type Output = Fut::Output;

    fn into_callback(self) -> impl Callback + 'static
    where
        Self::Output: CallbackOutput,
    {
        ClosureCallback::new(self)
    }
}

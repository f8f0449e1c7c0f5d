//! Arguments of `defer`: futures, and closures that return futures.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use pin_project_lite::pin_project;
use tokio::task::JoinHandle;

use super::output::{CallbackOutput, Failure};
use crate::completion::Completion;

/// The argument of [`defer`](crate::defer).
///
/// | argument | example |
/// |---|---|
/// | a future | `async { mail().await }` |
/// | a closure that makes one | `move \|\| async move { mail(to).await }` |
/// | a closure that takes the completion | `\|c: Completion\| async move { audit(c.status()).await }` |
///
/// The output of the future is `()` or `Result<(), E>`; see [`CallbackOutput`]. A closure is called
/// when its callback starts, and never if the callback is skipped. The type of its argument must be
/// written: `|c: Completion|` instead of `|c|`.
///
/// A spawned task does not compile, because it has started already. To wait for one, pass
/// `async { task.await }`.
///
/// ```compile_fail
/// # fn handler() {
/// axum_defer::defer(tokio::spawn(async { println!("before the response") }));
/// # }
/// ```
///
/// The parameter `M` distinguishes the forms and is always inferred.
///
/// ```
/// use axum_defer::{CallbackOutput, Deferrable, DeferredCallback, defer};
///
/// /// Defers a mail with the rule for all mails of this app.
/// #[track_caller]
/// fn defer_mail<M, C>(mail: C) -> DeferredCallback
/// where
///     C: Deferrable<M, Output: CallbackOutput>,
/// {
///     defer(mail).name("mail").when(|completion| completion.is_complete())
/// }
/// # fn handler() { defer_mail(async {}); }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be deferred",
    label = "not a future, or a closure that returns one",
    note = "pass an `async {{ .. }}` block, a closure `|| async {{ .. }}`, or a closure `|completion: Completion| async {{ .. }}`; it must be `Send + 'static`",
    note = "for a plain closure that blocks, use `defer_blocking`"
)]
pub trait Deferrable<M>: Send + 'static {
    /// The output of the callback.
    ///
    /// [`defer`](crate::defer) bounds it, instead of this trait, because the compiler then explains an
    /// output that cannot be reported.
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

/// Makes `defer(tokio::spawn(..))` ambiguous, so it does not compile. The error message shows the name.
#[doc(hidden)]
#[derive(Debug)]
pub struct TaskThatRunsBeforeTheResponse;

impl<T: Send + 'static> Deferrable<TaskThatRunsBeforeTheResponse> for JoinHandle<T> {
    type Output = <Self as Future>::Output;

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

/// The code of one callback.
pub trait Callback: Send {
    fn poll_callback(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        completion: &Completion,
    ) -> Poll<Result<(), Failure>>;
}

pin_project! {
    pub(crate) struct FutureCallback<F> {
        #[pin]
        future: F,
    }
}

impl<F> Callback for FutureCallback<F>
where
    F: Future<Output: CallbackOutput> + Send,
{
    fn poll_callback(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        _: &Completion,
    ) -> Poll<Result<(), Failure>> {
        self.project()
            .future
            .poll(cx)
            .map(CallbackOutput::into_result)
    }
}

pin_project! {
    #[project = ClosureProjection]
    pub(crate) enum ClosureCallback<F, Fut> {
        Waiting { closure: Option<F> },
        Running { #[pin] future: Fut },
    }
}

impl<F, Fut> ClosureCallback<F, Fut>
where
    F: FnOnce(Completion) -> Fut,
{
    pub(crate) fn new(closure: F) -> Self {
        Self::Waiting {
            closure: Some(closure),
        }
    }
}

impl<F, Fut> Callback for ClosureCallback<F, Fut>
where
    F: FnOnce(Completion) -> Fut + Send,
    Fut: Future<Output: CallbackOutput> + Send,
{
    fn poll_callback(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        completion: &Completion,
    ) -> Poll<Result<(), Failure>> {
        loop {
            let future = match self.as_mut().project() {
                ClosureProjection::Running { future } => {
                    return future.poll(cx).map(CallbackOutput::into_result);
                }
                ClosureProjection::Waiting { closure } => match closure.take() {
                    Some(closure) => closure(completion.clone()),
                    None => return Poll::Ready(Err(Failure::Lost)),
                },
            };
            self.set(Self::Running { future });
        }
    }
}

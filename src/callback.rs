//! What can be deferred, and the form in which it waits.

use std::{
    borrow::Cow,
    error::Error,
    future::Future,
    panic::Location,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use pin_project_lite::pin_project;
use tokio::{task::JoinHandle, time::Instant};

use crate::{completion::Completion, isolate::isolate, never::Never};

/// The error that a callback may return; it is reported and goes no further.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// How one callback ended when it did not succeed.
#[derive(Debug)]
pub enum Failure {
    /// It returned an error.
    Error(BoxError),
    /// The runtime is gone before it could run.
    Lost,
}

/// What a callback may return: `()`, or a `Result<(), E>` whose error can be boxed.
#[diagnostic::on_unimplemented(
    message = "a deferred callback can't return `{Self}`",
    label = "this callback returns `{Self}`",
    note = "a callback returns `()`, or `Result<(), E>` where `E: Into<Box<dyn Error + Send + Sync>>`",
    note = "nobody waits for its value: throw it away with a `;`, or with `.map(drop)` to keep the error"
)]
pub trait CallbackOutput: sealed::Sealed {
    #[doc(hidden)]
    fn into_result(self) -> Result<(), Failure>;
}

impl CallbackOutput for () {
    fn into_result(self) -> Result<(), Failure> {
        Ok(())
    }
}

/// Of a callback that ends the process, or panics: since edition 2024 that is what such a block
/// returns.
impl CallbackOutput for Never {
    fn into_result(self) -> Result<(), Failure> {
        match self {}
    }
}

impl<E> CallbackOutput for Result<(), E>
where
    E: Into<BoxError>,
{
    fn into_result(self) -> Result<(), Failure> {
        self.map_err(|error| Failure::Error(error.into()))
    }
}

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
    fn into_run(self) -> impl Run + 'static;
}

/// What [`defer_blocking`](crate::defer_blocking) takes: a closure without arguments, or one that
/// takes the [`Completion`]. It returns `()` or `Result<(), E>`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` can't be deferred as blocking work",
    label = "not a closure that returns `()` or `Result<(), E>`",
    note = "nobody waits for its value: throw it away with a `;`, or with `.map(drop)` to keep the error",
    note = "pass `|| {{ .. }}` or `|completion: Completion| {{ .. }}`; it must be `Send + 'static`",
    note = "for a future, use `defer`"
)]
pub trait DeferrableBlocking<M>: Send + 'static {
    #[doc(hidden)]
    fn into_run(self) -> impl Run + 'static;
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
    fn into_run(self) -> impl Run + 'static {
        RunFuture { future: self }
    }
}

impl<F, Fut> Deferrable<AsClosure> for F
where
    F: FnOnce() -> Fut + Send + 'static,
    Fut: Future<Output: CallbackOutput> + Send + 'static,
{
    fn into_run(self) -> impl Run + 'static {
        RunClosure::new(|_| self())
    }
}

impl<F, Fut> Deferrable<AsClosureOfCompletion> for F
where
    F: FnOnce(Completion) -> Fut + Send + 'static,
    Fut: Future<Output: CallbackOutput> + Send + 'static,
{
    fn into_run(self) -> impl Run + 'static {
        RunClosure::new(self)
    }
}

impl<F, T> DeferrableBlocking<AsClosure> for F
where
    F: FnOnce() -> T + Send + 'static,
    T: CallbackOutput,
{
    fn into_run(self) -> impl Run + 'static {
        blocking(|_| self().into_result())
    }
}

impl<F, T> DeferrableBlocking<AsClosureOfCompletion> for F
where
    F: FnOnce(Completion) -> T + Send + 'static,
    T: CallbackOutput,
{
    fn into_run(self) -> impl Run + 'static {
        blocking(|completion| self(completion).into_result())
    }
}

fn blocking(
    closure: impl FnOnce(Completion) -> Result<(), Failure> + Send + 'static,
) -> impl Run + 'static {
    RunClosure::new(|completion| {
        let closure = crate::current::carry(move || closure(completion));
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

/// One callback, polled in place.
pub trait Run: Send {
    fn poll_run(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        completion: &Completion,
    ) -> Poll<Result<(), Failure>>;
}

pin_project! {
    struct RunFuture<F> {
        #[pin]
        future: F,
    }
}

impl<F> Run for RunFuture<F>
where
    F: Future<Output: CallbackOutput> + Send,
{
    fn poll_run(
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
    #[project = RunClosureProjection]
    enum RunClosure<F, Fut> {
        Waiting { closure: Option<F> },
        Running { #[pin] future: Fut },
    }
}

impl<F, Fut> RunClosure<F, Fut>
where
    F: FnOnce(Completion) -> Fut,
{
    fn new(closure: F) -> Self {
        Self::Waiting {
            closure: Some(closure),
        }
    }
}

impl<F, Fut> Run for RunClosure<F, Fut>
where
    F: FnOnce(Completion) -> Fut + Send,
    Fut: Future<Output: CallbackOutput> + Send,
{
    fn poll_run(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        completion: &Completion,
    ) -> Poll<Result<(), Failure>> {
        loop {
            let future = match self.as_mut().project() {
                RunClosureProjection::Running { future } => {
                    return future.poll(cx).map(CallbackOutput::into_result);
                }
                RunClosureProjection::Waiting { closure } => {
                    let closure = closure.take().expect("not polled after a panic");
                    closure(*completion)
                }
            };
            self.set(Self::Running { future });
        }
    }
}

struct Blocking {
    task: JoinHandle<Result<(), Failure>>,
}

impl Future for Blocking {
    type Output = CallbackEnd;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<CallbackEnd> {
        Pin::new(&mut self.task).poll(cx).map(|joined| {
            CallbackEnd(match joined {
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
        // Keeps a closure that is still in the pool's queue from starting after its time-out.
        self.task.abort();
    }
}

/// How a callback inside of [`DeferLayer::wrap`](crate::DeferLayer::wrap) ended; the wrapping
/// future returns it as it is.
#[derive(Debug)]
#[must_use = "the wrapping future returns it"]
pub struct CallbackEnd(pub(crate) Result<(), Failure>);

impl CallbackOutput for CallbackEnd {
    fn into_result(self) -> Result<(), Failure> {
        self.0
    }
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for () {}
    impl Sealed for super::Never {}
    impl<E> Sealed for Result<(), E> {}
    impl Sealed for super::CallbackEnd {}
}

/// Which completions a callback runs for.
pub(crate) type Predicate = dyn Fn(&Completion) -> bool + Send + Sync;

#[derive(Clone, Default)]
pub(crate) enum Rule {
    /// The layer's rule, or success where it has none.
    #[default]
    Layer,
    Always,
    When(Arc<Predicate>),
}

impl Rule {
    /// Whether the callback runs; a panic of the predicate is returned as its message.
    pub(crate) fn allows(
        &self,
        completion: &Completion,
        layer: Option<&Arc<Predicate>>,
    ) -> Result<bool, String> {
        let predicate = match (self, layer) {
            (Self::Always, _) => return Ok(true),
            (Self::Layer, None) => return Ok(completion.is_success()),
            (Self::Layer, Some(predicate)) | (Self::When(predicate), _) => predicate,
        };
        isolate(|| predicate(completion))
    }
}

/// All that is known of a callback beside its code.
pub(crate) struct Header {
    /// Ascends with the order of registration within a scope.
    pub(crate) id: u64,
    pub(crate) name: Option<Cow<'static, str>>,
    pub(crate) location: &'static Location<'static>,
    /// Left out where nobody is told how long the callback waited.
    pub(crate) registered: Option<Instant>,
    pub(crate) rule: Rule,
    pub(crate) timeout: Option<Duration>,
    /// Observers have been told of the registration.
    pub(crate) announced: bool,
    /// Its handle may still say how it is to run.
    pub(crate) held: bool,
    #[cfg(feature = "tracing")]
    pub(crate) span: Option<tracing::Span>,
}

impl Header {
    /// The caller fills in the id when the callback takes its place in the queue.
    pub(crate) fn new(location: &'static Location<'static>) -> Self {
        Self {
            id: 0,
            name: None,
            location,
            registered: None,
            rule: Rule::default(),
            timeout: None,
            announced: false,
            held: false,
            #[cfg(feature = "tracing")]
            span: crate::observe::trace::span(location),
        }
    }

    pub(crate) fn waited_until(&self, start: Instant) -> Duration {
        match self.registered {
            Some(registered) => start.saturating_duration_since(registered),
            None => Duration::ZERO,
        }
    }
}

pin_project! {
    /// A registered callback: one allocation that holds its header and its code.
    pub(crate) struct Entry<C: ?Sized = dyn Run> {
        pub(crate) header: Header,
        #[pin]
        callback: C,
    }
}

pub(crate) type BoxEntry = Pin<Box<Entry>>;

impl<C> Entry<C> {
    pub(crate) fn new(header: Header, callback: C) -> Self {
        Self { header, callback }
    }
}

impl Entry {
    pub(crate) fn header_mut(self: Pin<&mut Self>) -> &mut Header {
        self.project().header
    }

    pub(crate) fn poll_run(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        completion: &Completion,
    ) -> Poll<Result<(), Failure>> {
        self.project().callback.poll_run(cx, completion)
    }
}

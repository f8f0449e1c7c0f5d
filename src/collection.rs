//! The door through which callbacks are registered.

use std::{fmt, panic::Location, sync::Arc};

use tokio::time::Instant;

use crate::{
    callback::{CallbackEnd, Deferrable, DeferrableBlocking, Entry, Failure, Header, Run},
    current::{self, Current},
    handle::DeferredCallback,
    options::{CallbackFuture, Wrap},
    runner,
    scope::Scope,
};

const NO_SCOPE: &str = "there is no scope to defer to: add `DeferLayer` to the router with \
    `.layer(axum_defer::DeferLayer::new())`, outside of this handler, or open a scope with \
    `axum_defer::scope(..)`. A task that was spawned is outside of the scope: move a \
    `DeferredCallbackCollection` into it";

/// Runs `callback` after the response has been sent.
///
/// Registers it with the scope that the calling code belongs to: the request that a
/// [`DeferLayer`](crate::DeferLayer) wraps, a [`scope`](crate::scope()), or a deferred callback
/// that is running. See [`Deferrable`] for what can be deferred. It runs on a task of its own,
/// one after the other with the other callbacks of the scope, if the response was a success;
/// the handle that is returned changes that.
///
/// Requests to other tasks are cut off from the scope, `tokio::spawn` included: move a
/// [`DeferredCallbackCollection`] there.
///
/// # Panics
///
/// When there is no scope: the message says where to add the layer. [`try_defer`] does not.
///
/// ```
/// use axum::{Router, routing::post};
/// use axum_defer::{DeferLayer, defer};
///
/// async fn sign_up() -> &'static str {
///     defer(async { /* send the welcome mail */ });
///     "welcome"
/// }
///
/// let app: Router = Router::new()
///     .route("/sign-up", post(sign_up))
///     .layer(DeferLayer::new());
/// ```
#[track_caller]
pub fn defer<M, C: Deferrable<M>>(callback: C) -> DeferredCallback {
    match current::get() {
        Some(current) => register(current, Location::caller(), callback.into_run()),
        None => panic!("{NO_SCOPE}"),
    }
}

/// Like [`defer`], but gives the callback back when there is no scope.
///
/// # Errors
///
/// [`NoScope`], outside of every scope.
///
/// ```
/// use axum_defer::try_defer;
///
/// let outside = try_defer(async {});
/// let callback = outside.unwrap_err().into_callback();
/// # drop(callback);
/// ```
#[track_caller]
pub fn try_defer<M, C: Deferrable<M>>(callback: C) -> Result<DeferredCallback, NoScope<C>> {
    match current::get() {
        Some(current) => Ok(register(current, Location::caller(), callback.into_run())),
        None => Err(NoScope { callback }),
    }
}

/// Like [`defer`], for a closure that blocks: it runs on Tokio's blocking pool.
///
/// The next callback of the scope starts when it is done. A time-out reports it, and can't stop
/// it: a closure that never returns keeps a thread, and the drop of its runtime (at the end of
/// `#[tokio::main]`, say) waits for it; `Runtime::shutdown_timeout` does not.
///
/// # Panics
///
/// When there is no scope, like [`defer`].
///
/// ```
/// # use axum_defer::{defer_blocking, scope};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// # scope(async {
/// defer_blocking(|| std::fs::write("/dev/null", "done"));
/// # })
/// # .await;
/// # }
/// ```
#[track_caller]
pub fn defer_blocking<M, C: DeferrableBlocking<M>>(callback: C) -> DeferredCallback {
    match current::get() {
        Some(current) => register(current, Location::caller(), callback.into_run()),
        None => panic!("{NO_SCOPE}"),
    }
}

fn register(
    current: Current,
    location: &'static Location<'static>,
    callback: impl Run + 'static,
) -> DeferredCallback {
    let Current { scope, is_driven } = current;
    let mut header = Header::new(location);
    if scope.options.observers.hear_times() {
        header.registered = Some(Instant::now());
    }
    let entry = match scope.options.wrap.clone() {
        None => Box::pin(Entry::new(header, callback)) as _,
        Some(wrap) => Box::pin(Entry::new(header, wrapped(&*wrap, callback))) as _,
    };
    // Where the runner may be at work on another thread, it has to wait for the handle.
    let holds = !is_driven;
    let (id, start) = scope.push(entry, holds);
    runner::start(&scope, start);
    DeferredCallback::new(scope, id, holds)
}

/// The callback inside of the future that the layer's `wrap` puts around it.
fn wrapped(wrap: &Wrap, callback: impl Run + 'static) -> impl Run + 'static {
    let mut callback = Box::pin(callback);
    let future = CallbackFuture::new(async move {
        let completion = current::get().and_then(|current| current.scope.completion());
        let Some(completion) = completion else {
            // Only the runner polls this, and it does so in the scope that it has fired.
            return CallbackEnd(Err(Failure::Lost));
        };
        std::future::poll_fn(|cx| callback.as_mut().poll_run(cx, &completion).map(CallbackEnd))
            .await
    });
    Deferrable::into_run(wrap(future))
}

/// A cheap, clonable handle on the callbacks of one scope.
///
/// It is in the extensions of every request that goes through a
/// [`DeferLayer`](crate::DeferLayer), it is an extractor (feature `axum`), and it may be kept and
/// moved to other tasks and threads. What is deferred through it while the unit of work lasts
/// joins that unit's callbacks; what comes after the last of them has run is run at once (when
/// the handle that [`defer`](Self::defer) returned is dropped), under the same
/// [`Completion`](crate::Completion).
///
/// ```
/// use axum_defer::DeferredCallbackCollection;
///
/// async fn handler(deferred: DeferredCallbackCollection) {
///     tokio::spawn(async move {
///         deferred.defer(async { /* after the response */ });
///     });
/// }
/// # #[cfg(feature = "axum")]
/// # let _ = axum::Router::<()>::new().route("/", axum::routing::get(handler));
/// ```
#[derive(Clone)]
pub struct DeferredCallbackCollection {
    scope: Arc<Scope>,
}

impl DeferredCallbackCollection {
    pub(crate) fn new(scope: Arc<Scope>) -> Self {
        Self { scope }
    }

    /// The collection of the scope that the calling code belongs to, if there is one.
    pub fn current() -> Option<Self> {
        current::get().map(|current| Self::new(current.scope))
    }

    /// Registers a callback; see [`defer`](crate::defer).
    #[track_caller]
    pub fn defer<M, C: Deferrable<M>>(&self, callback: C) -> DeferredCallback {
        register(self.as_current(), Location::caller(), callback.into_run())
    }

    /// Registers a closure that blocks; see [`defer_blocking`](crate::defer_blocking).
    #[track_caller]
    pub fn defer_blocking<M, C: DeferrableBlocking<M>>(&self, callback: C) -> DeferredCallback {
        register(self.as_current(), Location::caller(), callback.into_run())
    }

    fn as_current(&self) -> Current {
        Current::as_seen_here(self.scope.clone())
    }

    /// Takes out the callback of this name, if it has not started; how many that were.
    ///
    /// Also from inside a callback, where it stops one that comes later. An unknown name is no
    /// error, and the name may be used again.
    pub fn forget(&self, name: &str) -> usize {
        usize::from(self.scope.forget(name))
    }

    /// Whether a callback of this name is registered and has not started.
    pub fn contains(&self, name: &str) -> bool {
        self.scope.contains(name)
    }

    /// How many callbacks are registered and have not started.
    pub fn len(&self) -> usize {
        self.scope.len()
    }

    /// Whether no callback is waiting.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The names of the callbacks that have not started, in their order; those without a name
    /// are left out.
    pub fn names(&self) -> Vec<String> {
        self.scope.names()
    }
}

impl fmt::Debug for DeferredCallbackCollection {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("DeferredCallbackCollection")
            .field("len", &self.len())
            .field("names", &self.names())
            .finish()
    }
}

/// There is no scope to defer to; gives the callback back.
///
/// Returned by [`try_defer`]. Its message says where to add the layer.
pub struct NoScope<C> {
    callback: C,
}

impl<C> NoScope<C> {
    /// The callback that could not be deferred.
    pub fn into_callback(self) -> C {
        self.callback
    }
}

impl<C> fmt::Display for NoScope<C> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(NO_SCOPE)
    }
}

impl<C> fmt::Debug for NoScope<C> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("NoScope").finish_non_exhaustive()
    }
}

impl<C> std::error::Error for NoScope<C> {}

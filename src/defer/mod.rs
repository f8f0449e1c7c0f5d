//! Registration of callbacks: the functions and handles that users call.

use std::{fmt, panic::Location};

use self::{blocking::DeferrableBlocking, deferred_callback::DeferredCallback, register::register};
use crate::{
    callback::{deferrable::Deferrable, output::CallbackOutput},
    scope::current,
};

pub(crate) mod before_response;
pub(crate) mod blocking;
pub(crate) mod collection;
pub(crate) mod deferred_callback;
pub(crate) mod in_scope;
mod register;
pub(crate) mod scope;

pub(super) const NO_SCOPE: &str = "there is no scope to defer to: add \
    `.layer(axum_defer::DeferLayer::new())` to the router, after the routes that defer. For work that \
    is not a request, use `axum_defer::scope(..)`, or `defer_or_spawn` in code that is also called \
    elsewhere. A spawned task is outside of the scope: spawn `future.in_current_scope()` instead, or \
    move a `DeferredCallbackCollection` into the task";

/// Runs `callback` after the response has been sent.
///
/// Registers it with the scope of the calling code: the request that a
/// [`DeferLayer`](crate::DeferLayer) wraps, a [`scope`](crate::scope()), or a deferred callback that
/// is running. See [`Deferrable`] for what can be deferred. The callbacks of a scope run on one task,
/// one after the other, if the response is a success. The returned handle changes that.
///
/// ```
/// use axum::{Router, routing::post};
/// use axum_defer::{BoxError, Completion, DeferLayer, defer};
///
/// async fn sign_up() -> &'static str {
///     defer(async { /* send the welcome mail */ });
///     // With `?`, the last line names the error type.
///     defer(async {
///         let invited: u32 = "3".parse()?;
///         println!("{invited} more are invited");
///         Ok::<_, BoxError>(())
///     });
///     // The type of the argument must be written.
///     defer(|completion: Completion| async move { println!("{:?}", completion.status()) });
///     "welcome"
/// }
///
/// let app: Router = Router::new()
///     .route("/sign-up", post(sign_up))
///     .layer(DeferLayer::new());
/// ```
///
/// # Scope
///
/// The scope contains the code that the handler runs, calls, and awaits, including `join!` and
/// streams, and the body while it is polled. It does not contain other tasks and threads:
/// `tokio::spawn`, `spawn_blocking`, `std::thread::spawn`, or an actor that receives a message. `defer`
/// panics there. Spawn [`future.in_current_scope()`](crate::InScope::in_current_scope), or move a
/// [`DeferredCallbackCollection`](crate::DeferredCallbackCollection) into the task and call [its
/// `defer`](crate::DeferredCallbackCollection::defer). A `JoinHandle` cannot be deferred, because its task
/// has started already.
///
/// # Panics
///
/// Panics if there is no scope. The message says where to add the layer. [`try_defer`] returns an
/// error instead, and [`defer_or_spawn`] opens a scope.
///
/// This is a panic of the handler: hyper closes the connection, and the message is on standard error.
/// tower-http's `CatchPanicLayer` around the routes responds with a 500. If a handler extracts a
/// [`DeferredCallbackCollection`](crate::DeferredCallbackCollection) without the layer, its client gets
/// a 500 that says where to add it.
#[track_caller]
pub fn defer<M, C: Deferrable<M, Output: CallbackOutput>>(callback: C) -> DeferredCallback {
    match current::get() {
        Some(current) => register(current, Location::caller(), callback.into_callback()),
        None => panic!("{NO_SCOPE}"),
    }
}

/// Like [`defer`], but returns the callback if there is no scope.
///
/// # Errors
///
/// Returns [`NoScopeError`] outside every scope.
///
/// ```
/// use axum_defer::try_defer;
///
/// let outside = try_defer(async {});
/// let callback = outside.unwrap_err().into_callback();
/// # drop(callback);
/// ```
#[track_caller]
pub fn try_defer<M, C: Deferrable<M, Output: CallbackOutput>>(
    callback: C,
) -> Result<DeferredCallback, NoScopeError<C>> {
    match current::get() {
        Some(current) => Ok(register(
            current,
            Location::caller(),
            callback.into_callback(),
        )),
        None => Err(NoScopeError { callback }),
    }
}

/// Like [`defer`], but for a closure that blocks. It runs on Tokio's blocking pool.
///
/// The next callback of the scope starts when it has ended. A timeout is reported, but cannot stop
/// the closure. A closure that never returns occupies a thread, and dropping its runtime waits for it,
/// for example at the end of `#[tokio::main]`. `Runtime::shutdown_timeout` does not.
///
/// # Panics
///
/// Panics if there is no scope, like [`defer`].
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
pub fn defer_blocking<M, C: DeferrableBlocking<M, Output: CallbackOutput>>(
    callback: C,
) -> DeferredCallback {
    match current::get() {
        Some(current) => register(current, Location::caller(), callback.into_callback()),
        None => panic!("{NO_SCOPE}"),
    }
}

/// Like [`defer`], but opens a scope if there is none.
///
/// For code that is shared with a command line tool, or whose tests call it without a request.
/// Outside every scope, it opens a scope that has ended with success, and runs the callback there
/// on a task when the returned handle is dropped. Nothing waits for that task.
///
/// # Panics
///
/// Panics outside every scope and of a Tokio runtime.
///
/// ```
/// use axum_defer::defer_or_spawn;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// async fn create_user(name: &str) {
///     let mail = format!("welcome, {name}");
///     // After the response of a request, or at once.
///     defer_or_spawn(async move { println!("{mail}") }).name("welcome mail");
/// }
/// create_user("grace").await;
/// # tokio::task::yield_now().await;
/// # }
/// ```
#[track_caller]
pub fn defer_or_spawn<M, C: Deferrable<M, Output: CallbackOutput>>(
    callback: C,
) -> DeferredCallback {
    let current = current::get().unwrap_or_else(|| {
        assert!(
            tokio::runtime::Handle::try_current().is_ok(),
            "`defer_or_spawn` was called outside of a scope and of a Tokio runtime, so nothing can \
             run the callback"
        );
        scope::open_ended()
    });
    register(current, Location::caller(), callback.into_callback())
}

/// The error of [`try_defer`]: there is no scope. Contains the callback.
///
/// ```
/// use axum_defer::try_defer;
///
/// // In a function that requests and other code call:
/// let outside = try_defer(async { println!("later, if there is a request") }).unwrap_err();
/// println!("{outside}");
/// let now = outside.into_callback();
/// # drop(now);
/// ```
pub struct NoScopeError<C> {
    callback: C,
}

impl<C> NoScopeError<C> {
    /// Returns the callback.
    pub fn into_callback(self) -> C {
        self.callback
    }
}

impl<C> fmt::Display for NoScopeError<C> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(NO_SCOPE)
    }
}

impl<C> fmt::Debug for NoScopeError<C> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("NoScopeError")
            .finish_non_exhaustive()
    }
}

impl<C> std::error::Error for NoScopeError<C> {}

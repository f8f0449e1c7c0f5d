//! What users call to have something run later.

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
#[cfg(feature = "axum")]
pub(crate) mod extract;
mod register;
pub(crate) mod scope;

pub(super) const NO_SCOPE: &str = "there is no scope to defer to: add \
    `.layer(axum_defer::DeferLayer::new())` to the router, after the routes that defer. Work that is \
    no request gets a scope from `axum_defer::scope(..)`. A task that was spawned is outside of the \
    scope: move a `DeferredCallbackCollection` into it";

/// Runs `callback` after the response has been sent.
///
/// Registers it with the scope that the calling code belongs to: the request that a
/// [`DeferLayer`](crate::DeferLayer) wraps, a [`scope`](crate::scope()), or a deferred callback
/// that is running. See [`Deferrable`] for what can be deferred. It runs on a task of its own,
/// one after the other with the other callbacks of the scope, if the response was a success;
/// the handle that is returned changes that.
///
/// ```
/// use axum::{Router, routing::post};
/// use axum_defer::{BoxError, Completion, DeferLayer, defer};
///
/// async fn sign_up() -> &'static str {
///     defer(async { /* send the welcome mail */ });
///     // With a `?`, the last line has to say what the errors become.
///     defer(async {
///         let invited: u32 = "3".parse()?;
///         println!("{invited} more are invited");
///         Ok::<_, BoxError>(())
///     });
///     // The type of a closure's argument has to be written.
///     defer(|completion: Completion| async move { println!("{:?}", completion.status()) });
///     "welcome"
/// }
///
/// let app: Router = Router::new()
///     .route("/sign-up", post(sign_up))
///     .layer(DeferLayer::new());
/// ```
///
/// # Where the scope is
///
/// The scope goes with the code that the handler runs, calls and awaits, `join!` and streams
/// included, and with a body while it is polled. It does not go to other tasks and threads, which
/// begin outside of every scope: `tokio::spawn`, `spawn_blocking`, `std::thread::spawn`, an actor
/// that gets a message. There, `defer` panics; move a
/// [`DeferredCallbackCollection`](crate::DeferredCallbackCollection) in, and call [its
/// `defer`](crate::DeferredCallbackCollection::defer).
///
/// # Panics
///
/// When there is no scope: the message says where to add the layer. [`try_defer`] returns an error
/// in its place.
///
/// It is a panic like any other in a handler. Nothing of this crate is between such a handler and
/// the server, so nothing can turn it into a response: hyper drops the connection, and the message is
/// on standard error. tower-http's `CatchPanicLayer`, around the routes, answers 500. A handler that
/// extracts a [`DeferredCallbackCollection`](crate::DeferredCallbackCollection) does not come that
/// far: without the layer its client gets a 500 that says where to add it.
#[track_caller]
pub fn defer<M, C: Deferrable<M, Output: CallbackOutput>>(callback: C) -> DeferredCallback {
    match current::get() {
        Some(current) => register(current, Location::caller(), callback.into_callback()),
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
pub fn try_defer<M, C: Deferrable<M, Output: CallbackOutput>>(
    callback: C,
) -> Result<DeferredCallback, NoScope<C>> {
    match current::get() {
        Some(current) => Ok(register(
            current,
            Location::caller(),
            callback.into_callback(),
        )),
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
pub fn defer_blocking<M, C: DeferrableBlocking<M, Output: CallbackOutput>>(
    callback: C,
) -> DeferredCallback {
    match current::get() {
        Some(current) => register(current, Location::caller(), callback.into_callback()),
        None => panic!("{NO_SCOPE}"),
    }
}

/// There is no scope to defer to; gives the callback back.
///
/// Returned by [`try_defer`]. Its message says where to add the layer.
///
/// ```
/// use axum_defer::try_defer;
///
/// // In a function that is called from requests and from elsewhere:
/// let outside = try_defer(async { println!("later, if there is a request") }).unwrap_err();
/// println!("{outside}");
/// let now = outside.into_callback();
/// # drop(now);
/// ```
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

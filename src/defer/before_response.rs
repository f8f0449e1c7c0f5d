//! What users call to have the response wait for something.

use std::{fmt, panic::Location};

use super::{
    NO_SCOPE, blocking::DeferrableBlocking, deferred_callback::DeferredCallback,
    register::register_before,
};
use crate::{
    callback::{code::Callback, deferrable::Deferrable, output::CallbackOutput},
    scope::current::{self, Current},
};

/// Runs `callback` before the response goes out: when its head is known, and before the client sees
/// any of it.
///
/// The counterpart of [`defer`](crate::defer()), for what the client must not be told before it has
/// happened: a commit, a job that is handed to a queue. Takes what `defer` takes, and is found in
/// the same places. Callbacks run one at a time, in the order of registration, if the response is a
/// success, or as the handle says: `.name`, `.always`, `.when`, `.timeout` and `.cancel` are the
/// same words. Names are a space of their own. The rule is told a
/// [`Completion`](crate::Completion) with the status and no bytes, and whose delivery is
/// [`Pending`](crate::Delivery::Pending); the layer's [`when`](crate::DeferLayer::when) is about the
/// end of a response, and plays no part. What one of them registers joins the same run.
///
/// # When one fails
///
/// The first that returns an error, panics or takes too long ends the run. Those after it are
/// skipped. The response is replaced by an empty 503 without any of its headers (with
/// [`new_for_grpc`](crate::DeferLayer::new_for_grpc): by grpc-status 14,
/// [`UNAVAILABLE`](https://grpc.io/docs/guides/status-codes/)), which
/// [`DeferLayer::before_response_failure_status`](crate::DeferLayer::before_response_failure_status)
/// changes; the error is in its extensions, as [`BeforeResponseFailed`](crate::BeforeResponseFailed).
/// What was deferred sees that failure: it is skipped unless it is `always`.
///
/// # When the client goes away
///
/// Once begun, the run is not cut off: it is on a task of its own, which a shutdown waits for. What
/// was deferred goes by its outcome, and is told that the delivery was
/// [`Aborted`](crate::Delivery::Aborted). If there was no response at all (the handler was dropped,
/// panicked or failed), only those run that are `always`, and then what was deferred.
///
/// In a [`scope`](crate::scope()) they run before the output is returned, and one that fails makes
/// the unit of work a failure for what it deferred.
///
/// They wait for no [`max_concurrency`](crate::DeferLayer::max_concurrency), since a client waits for
/// them.
///
/// # Panics
///
/// When there is no scope, and when it is too late: when the head of the response has been released,
/// so in a body, in a deferred callback, or in a task that took too long. [`try_before_response`]
/// does not.
///
/// ```
/// use axum::{Router, routing::post};
/// use axum_defer::{DeferLayer, before_response, defer};
///
/// # struct Transaction;
/// # impl Transaction { async fn commit(self) -> Result<(), std::io::Error> { Ok(()) } }
/// # async fn begin() -> Transaction { Transaction }
/// # async fn warm_the_cache() {}
/// async fn place_order() -> &'static str {
///     let transaction = begin().await;
///     before_response(async move { transaction.commit().await }); // or the client gets a 503
///     defer(async { warm_the_cache().await });                    // only if it was committed
///     "thank you"
/// }
///
/// let app: Router = Router::new()
///     .route("/orders", post(place_order))
///     .layer(DeferLayer::new());
/// ```
#[track_caller]
pub fn before_response<M, C: Deferrable<M, Output: CallbackOutput>>(
    callback: C,
) -> DeferredCallback {
    or_panic(register(current::get(), callback.into_callback()))
}

/// Like [`before_response`], without its panics.
///
/// # Errors
///
/// [`NoHead`], outside of every scope, and when the head of the response has been released. The
/// callback is dropped.
///
/// ```
/// use axum_defer::{NoHead, defer, scope, try_before_response};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// assert_eq!(try_before_response(async {}).unwrap_err(), NoHead::NoScope);
/// scope(async {
///     assert!(try_before_response(async {}).is_ok());
///     defer(async {
///         assert_eq!(try_before_response(async {}).unwrap_err(), NoHead::Released);
///     });
/// })
/// .await;
/// # }
/// ```
#[track_caller]
pub fn try_before_response<M, C: Deferrable<M, Output: CallbackOutput>>(
    callback: C,
) -> Result<DeferredCallback, NoHead> {
    register(current::get(), callback.into_callback())
}

/// Like [`before_response`], for a closure that blocks: it runs on Tokio's blocking pool.
///
/// # Panics
///
/// As [`before_response`] does.
///
/// ```
/// # use axum_defer::{before_response_blocking, scope};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// # scope(async {
/// before_response_blocking(|| std::fs::write("/dev/null", "committed"));
/// # })
/// # .await;
/// # }
/// ```
#[track_caller]
pub fn before_response_blocking<M, C: DeferrableBlocking<M, Output: CallbackOutput>>(
    callback: C,
) -> DeferredCallback {
    or_panic(register(current::get(), callback.into_callback()))
}

#[track_caller]
pub(super) fn register(
    current: Option<Current>,
    callback: impl Callback + 'static,
) -> Result<DeferredCallback, NoHead> {
    let current = current.ok_or(NoHead::NoScope)?;
    register_before(current, Location::caller(), callback).ok_or(NoHead::Released)
}

/// No closure, so that the panic has the line of the caller.
#[track_caller]
pub(super) fn or_panic(handle: Result<DeferredCallback, NoHead>) -> DeferredCallback {
    match handle {
        Ok(handle) => handle,
        Err(no_head) => panic!("{no_head}"),
    }
}

const TOO_LATE: &str = "too late for `before_response`: the head of the response has been \
    released, or the unit of work is over. Call it in the handler, before it returns, or in a \
    callback that `before_response` runs; use `defer` for what runs after the response";

/// There is no head of a response to hold back. Returned by [`try_before_response`].
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// use axum_defer::{NoHead, defer, scope, try_before_response};
///
/// assert_eq!(try_before_response(async {}).unwrap_err(), NoHead::NoScope);
/// scope(async {
///     defer(async {
///         // The response is over, so there is no head any more.
///         assert_eq!(try_before_response(async {}).unwrap_err(), NoHead::Released);
///     });
/// })
/// .await;
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NoHead {
    /// There is no scope: see [`defer`](crate::defer()).
    NoScope,
    /// It has been released: the response is on its way, or the unit of work is over.
    Released,
}

impl fmt::Display for NoHead {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::NoScope => NO_SCOPE,
            Self::Released => TOO_LATE,
        })
    }
}

impl std::error::Error for NoHead {}

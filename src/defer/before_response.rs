//! Registration of callbacks that the response waits for.

use std::{fmt, panic::Location};

use super::{
    NO_SCOPE, blocking::DeferrableBlocking, deferred_callback::BeforeResponseCallback,
    register::register_before,
};
use crate::{
    callback::{
        deferrable::{Callback, Deferrable},
        output::CallbackOutput,
    },
    scope::{Current, current},
};

/// Runs `callback` before the response goes out: when its head is known, and before the client
/// receives any of it.
///
/// Use it for work that must have happened when the client sees the response: a commit, or a job that
/// is added to a queue. It takes what [`defer`](crate::defer()) takes, and needs a scope as `defer`
/// does. Callbacks that one of them registers join the same run.
///
/// Callbacks run one at a time in the order of registration, if the response is a success. The handle
/// can set another rule, which receives a [`Completion`](crate::Completion) with the status, without
/// bytes, and with the delivery [`Pending`](crate::Delivery::Pending). The layer's
/// [`when`](crate::DeferLayer::when) does not apply. Names are independent of those of deferred
/// callbacks.
///
/// # Failures
///
/// The first callback that returns an error, panics, or times out ends the run, and the rest is
/// skipped. An empty 503 without headers replaces the response. With
/// [`new_for_grpc`](crate::DeferLayer::new_for_grpc) it has grpc-status 14
/// ([`UNAVAILABLE`](https://grpc.io/docs/guides/status-codes/)).
/// [`DeferLayer::before_response_failure_status`](crate::DeferLayer::before_response_failure_status)
/// sets another status. The response's extensions contain the error as
/// [`BeforeResponseFailed`](crate::BeforeResponseFailed). For deferred callbacks, the unit of work is
/// a failure.
///
/// If the task that runs the callbacks is dropped, for example by a runtime that shuts down, the
/// response fails in the same way.
///
/// # Disconnects
///
/// A run that has begun is not interrupted if the client disconnects: it is on a task of its own, and a
/// shutdown waits for it. Its outcome decides which deferred callbacks run, with the delivery
/// [`Aborted`](crate::Delivery::Aborted). If there was no response (the handler was dropped, panicked,
/// or failed), only callbacks that are `always` run, and then the deferred ones.
///
/// In a [`scope`](crate::scope()), they run before the output is returned, and a failure makes the unit
/// of work a failure for its deferred callbacks.
///
/// They do not wait for [`max_concurrency`](crate::DeferLayer::max_concurrency), because a client
/// waits for them.
///
/// # Panics
///
/// Panics if there is no scope, or if the head of the response is released: in a body, in a deferred
/// callback, or in a task that took too long. [`try_before_response`] returns an error instead.
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
///     before_response(async move { transaction.commit().await }); // a failure becomes a 503
///     defer(async { warm_the_cache().await });                    // runs only after the commit
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
) -> BeforeResponseCallback {
    or_panic(register(current::get(), callback.into_callback()))
}

/// Like [`before_response`], but returns an error instead of panicking.
///
/// # Errors
///
/// Returns [`BeforeResponseError`] outside every scope, and if the head of the response is released.
/// The callback is dropped.
///
/// ```
/// use axum_defer::{BeforeResponseError, defer, scope, try_before_response};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// assert_eq!(try_before_response(async {}).unwrap_err(), BeforeResponseError::NoScope);
/// scope(async {
///     assert!(try_before_response(async {}).is_ok());
///     defer(async {
///         assert_eq!(try_before_response(async {}).unwrap_err(), BeforeResponseError::Released);
///     });
/// })
/// .await;
/// # }
/// ```
#[track_caller]
pub fn try_before_response<M, C: Deferrable<M, Output: CallbackOutput>>(
    callback: C,
) -> Result<BeforeResponseCallback, BeforeResponseError> {
    register(current::get(), callback.into_callback())
}

/// Like [`before_response`], for a closure that blocks: it runs on Tokio's blocking pool.
///
/// # Panics
///
/// Panics like [`before_response`].
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
) -> BeforeResponseCallback {
    or_panic(register(current::get(), callback.into_callback()))
}

#[track_caller]
pub(super) fn register(
    current: Option<Current>,
    callback: impl Callback + 'static,
) -> Result<BeforeResponseCallback, BeforeResponseError> {
    let current = current.ok_or(BeforeResponseError::NoScope)?;
    register_before(current, Location::caller(), callback).ok_or(BeforeResponseError::Released)
}

/// Panics at the location of the caller, which a closure would not report.
#[track_caller]
pub(super) fn or_panic(
    handle: Result<BeforeResponseCallback, BeforeResponseError>,
) -> BeforeResponseCallback {
    match handle {
        Ok(handle) => handle,
        Err(error) => panic!("{error}"),
    }
}

const TOO_LATE: &str = "too late for `before_response`: the head of the response is released, or the \
    unit of work has ended. Call it in the handler before it returns, or in a callback that \
    `before_response` runs. Use `defer` for work after the response";

/// The error of [`try_before_response`]: there is no response that could wait.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// use axum_defer::{BeforeResponseError, defer, scope, try_before_response};
///
/// assert_eq!(try_before_response(async {}).unwrap_err(), BeforeResponseError::NoScope);
/// scope(async {
///     defer(async {
///         // The response has ended.
///         assert_eq!(try_before_response(async {}).unwrap_err(), BeforeResponseError::Released);
///     });
/// })
/// .await;
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BeforeResponseError {
    /// There is no scope. See [`defer`](crate::defer()).
    NoScope,
    /// The head is released: the response is on its way, or the unit of work has ended.
    Released,
}

impl fmt::Display for BeforeResponseError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::NoScope => NO_SCOPE,
            Self::Released => TOO_LATE,
        })
    }
}

impl std::error::Error for BeforeResponseError {}

//! The future that `DeferLayer::wrap` puts around a callback.

use std::{
    fmt,
    future::{Future, poll_fn},
    pin::Pin,
    task::{Context, Poll},
};

use super::{
    deferrable::{Callback, Deferrable},
    output::{CallbackResult, Failure},
};
use crate::completion::Completion;

pub(crate) type Wrap = dyn Fn(CallbackFuture) -> CallbackFuture + Send + Sync;

/// One callback as a future, for [`DeferLayer::wrap`](crate::DeferLayer::wrap) to poll inside
/// another future.
///
/// ```
/// use axum_defer::{CallbackFuture, CallbackResult, DeferLayer};
///
/// async fn log_both_ends(callback: CallbackFuture) -> CallbackResult {
///     println!("callback starts");
///     let result = callback.await;
///     println!("callback ended");
///     result
/// }
///
/// let layer = DeferLayer::new().wrap(log_both_ends);
/// # let _ = layer;
/// ```
pub struct CallbackFuture(Pin<Box<dyn Future<Output = CallbackResult> + Send>>);

impl CallbackFuture {
    pub(crate) fn new(future: impl Future<Output = CallbackResult> + Send + 'static) -> Self {
        Self(Box::pin(future))
    }
}

impl Future for CallbackFuture {
    type Output = CallbackResult;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<CallbackResult> {
        self.0.as_mut().poll(cx)
    }
}

impl fmt::Debug for CallbackFuture {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("CallbackFuture")
            .finish_non_exhaustive()
    }
}

/// Puts the layer's `wrap` around a callback. `completion` returns the completion of the running
/// phase, once the callback is polled.
pub(crate) fn wrapped(
    wrap: &Wrap,
    completion: impl FnOnce() -> Option<Completion> + Send + 'static,
    callback: impl Callback + 'static,
) -> impl Callback + 'static {
    let mut callback = Box::pin(callback);
    let future = CallbackFuture::new(async move {
        let Some(completion) = completion() else {
            // Only a runner polls this future, inside the scope and after its phase has begun.
            return CallbackResult(Err(Failure::Lost));
        };
        poll_fn(|cx| {
            callback
                .as_mut()
                .poll_callback(cx, &completion)
                .map(CallbackResult)
        })
        .await
    });
    Deferrable::into_callback(wrap(future))
}

//! One callback as the layer's `wrap` sees it.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use super::output::CallbackEnd;

pub(crate) type Wrap = dyn Fn(CallbackFuture) -> CallbackFuture + Send + Sync;

/// One callback as [`DeferLayer::wrap`](crate::DeferLayer::wrap) sees it: a future to poll
/// inside of another one.
///
/// ```
/// use axum_defer::{CallbackEnd, CallbackFuture, DeferLayer};
///
/// async fn between_two_lines(callback: CallbackFuture) -> CallbackEnd {
///     println!("here it comes");
///     let end = callback.await;
///     println!("there it was");
///     end
/// }
///
/// let layer = DeferLayer::new().wrap(between_two_lines);
/// # let _ = layer;
/// ```
pub struct CallbackFuture(Pin<Box<dyn Future<Output = CallbackEnd> + Send>>);

impl CallbackFuture {
    pub(crate) fn new(future: impl Future<Output = CallbackEnd> + Send + 'static) -> Self {
        Self(Box::pin(future))
    }
}

impl Future for CallbackFuture {
    type Output = CallbackEnd;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<CallbackEnd> {
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

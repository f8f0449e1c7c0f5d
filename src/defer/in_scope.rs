//! Futures that carry a scope into a task.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use pin_project_lite::pin_project;

use super::collection::DeferredCallbackCollection;
use crate::scope::{Current, current};

/// An extension trait for futures that carries the current scope into a task, as
/// `tracing::Instrument` carries a span.
///
/// ```
/// use axum_defer::{InScope, defer};
///
/// async fn handler() -> &'static str {
///     let work = async {
///         defer(async { println!("after the response") });
///         "done"
///     };
///     // Without `in_current_scope`, `defer` would panic on the task.
///     tokio::spawn(work.in_current_scope()).await.unwrap()
/// }
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() { axum_defer::scope(async { handler().await; }).await; }
/// ```
pub trait InScope: Sized {
    /// Makes the current scope current while the future is polled and when it is dropped.
    ///
    /// The scope is captured by this call. Without one, this has no effect. Neither the end of the
    /// response nor a drain waits for the future. Callbacks that it defers after the response run at
    /// once.
    fn in_current_scope(self) -> ScopedFuture<Self> {
        ScopedFuture::new(self, current::get())
    }
}

impl<F: Future> InScope for F {}

impl DeferredCallbackCollection {
    /// Like [`InScope::in_current_scope`], but for the scope of this collection.
    ///
    /// ```
    /// use axum_defer::{DeferredCallbackCollection, defer};
    ///
    /// async fn handler(deferred: DeferredCallbackCollection) {
    ///     tokio::spawn(deferred.in_scope(async {
    ///         defer(async { /* after the response */ });
    ///     }));
    /// }
    /// # #[cfg(feature = "axum")]
    /// # let _ = axum::Router::<()>::new().route("/", axum::routing::get(handler));
    /// ```
    pub fn in_scope<F: Future>(&self, future: F) -> ScopedFuture<F> {
        ScopedFuture::new(future, Some(Current::external(self.scope().clone())))
    }
}

pin_project! {
    /// A future inside a scope. Returned by [`InScope::in_current_scope`] and
    /// [`DeferredCallbackCollection::in_scope`].
    ///
    /// ```
    /// use axum_defer::{InScope, ScopedFuture};
    ///
    /// let scoped: ScopedFuture<_> = async {}.in_current_scope();
    /// # drop(scoped);
    /// ```
    pub struct ScopedFuture<F> {
        // `None` only while this is dropped.
        #[pin]
        future: Option<F>,
        scope: Option<Current>,
    }

    impl<F> PinnedDrop for ScopedFuture<F> {
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
            let _entered = this.scope.is_some().then(|| current::enter(this.scope));
            this.future.set(None);
        }
    }
}

impl<F> ScopedFuture<F> {
    fn new(future: F, current: Option<Current>) -> Self {
        Self {
            future: Some(future),
            scope: current.map(|current| Current::external(current.scope)),
        }
    }
}

impl<F: Future> Future for ScopedFuture<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let Some(future) = this.future.as_pin_mut() else {
            unreachable!("only its drop removes the future");
        };
        let _entered = this.scope.is_some().then(|| current::enter(this.scope));
        future.poll(cx)
    }
}

impl<F> fmt::Debug for ScopedFuture<F> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("ScopedFuture")
            .finish_non_exhaustive()
    }
}

//! What a layer was told to do; shared by all of its scopes.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use tokio::sync::Semaphore;

use crate::{
    callback::{CallbackEnd, Predicate},
    drain::Tracker,
    observe::Observers,
};

#[derive(Clone, Default)]
pub(crate) struct Options {
    pub(crate) rule: Option<Arc<Predicate>>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) concurrent: bool,
    pub(crate) inline: bool,
    pub(crate) max_pending: Option<usize>,
    /// One permit per scope that runs.
    pub(crate) running: Option<Arc<Semaphore>>,
    pub(crate) observers: Observers,
    pub(crate) wrap: Option<Arc<Wrap>>,
    pub(crate) tracker: Arc<Tracker>,
}

pub(crate) type Wrap = dyn Fn(CallbackFuture) -> CallbackFuture + Send + Sync;

/// One callback as [`DeferLayer::wrap`](crate::DeferLayer::wrap) sees it: a future to poll
/// inside of another one.
pub struct CallbackFuture(pub(crate) Pin<Box<dyn Future<Output = CallbackEnd> + Send>>);

impl CallbackFuture {
    pub(crate) fn new(future: impl Future<Output = CallbackEnd> + Send + 'static) -> Self {
        Self(Box::pin(future))
    }
}

impl Future for CallbackFuture {
    type Output = CallbackEnd;

    fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<CallbackEnd> {
        self.0.as_mut().poll(cx)
    }
}

impl std::fmt::Debug for CallbackFuture {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("CallbackFuture")
            .finish_non_exhaustive()
    }
}

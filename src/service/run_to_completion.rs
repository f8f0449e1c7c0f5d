//! Handlers that run to their end, even if the client disconnects.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use tokio::task::{JoinError, JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::scope::{Scope, store::Store};

/// A guard that makes drains wait for a handler.
pub(super) struct DrainGuard {
    store: Arc<Store>,
    shard: u32,
}

impl DrainGuard {
    pub(super) fn new(store: Arc<Store>) -> Self {
        let shard = store.handler_started();
        Self { store, shard }
    }
}

impl Drop for DrainGuard {
    fn drop(&mut self) {
        self.store.handler_ended(self.shard);
    }
}

/// The task of a handler, as the client waits for it.
pub(super) struct HandlerTask<T> {
    /// With the guard if the body of the response is to be finished, because then it must not be
    /// dropped before the response.
    task: JoinHandle<(T, Option<DrainGuard>)>,
    /// Cancelled if this is dropped before the task is ready.
    client_gone: Option<CancellationToken>,
}

impl<T> Future for HandlerTask<T> {
    type Output = Result<T, JoinError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let result = ready!(Pin::new(&mut self.task).poll(cx));
        self.client_gone = None;
        Poll::Ready(result.map(|(response, _)| response))
    }
}

impl<T> Drop for HandlerTask<T> {
    fn drop(&mut self) {
        if let Some(client_gone) = &self.client_gone {
            client_gone.cancel();
        }
    }
}

/// Drives a request on a task of its own.
pub(super) fn spawn<F>(request: F, guard: DrainGuard, scope: &Scope) -> HandlerTask<F::Output>
where
    F: Future<Output: Send> + Send + 'static,
{
    let client_gone = scope.client_gone().cloned();
    let finishes_body = scope.options.finish_body.is_some();
    let handler = async move {
        let response = request.await;
        // Otherwise the callbacks are counted by now, so the drain sees no gap.
        let guard = finishes_body.then_some(guard);
        (response, guard)
    };
    #[cfg(feature = "tracing")]
    let handler = ::tracing::Instrument::in_current_span(handler);
    HandlerTask {
        task: tokio::spawn(handler),
        client_gone,
    }
}

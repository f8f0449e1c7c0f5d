//! Drives a request to its end, whether or not its client still waits.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use tokio::task::{JoinError, JoinHandle};

use crate::{
    scope::{client::Client, options::Options},
    sent::response::ResponseHandle,
};

/// Keeps the tracker from being idle.
pub(super) struct Hold {
    options: Arc<Options>,
    client: Option<Arc<Client>>,
}

impl Hold {
    /// From now on, the shutdown of a server waits for it too.
    pub(super) fn new(options: Arc<Options>, response: Option<&ResponseHandle>) -> Self {
        options.tracker.hold(options.shard);
        if let Some(response) = response {
            response.drain_with(&options.tracker);
        }
        Self {
            options,
            client: None,
        }
    }

    /// The client is told when nobody waits for its answer any more.
    pub(super) fn of(mut self, client: Option<Arc<Client>>) -> Self {
        self.client = client;
        self
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.options.tracker.let_go(self.options.shard);
    }
}

/// The answer, as the client waits for it.
pub(super) struct Awaited<T> {
    task: JoinHandle<T>,
    /// Hears of it if nobody waits any more.
    client: Option<Arc<Client>>,
}

impl<T> Future for Awaited<T> {
    type Output = Result<T, JoinError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = ready!(Pin::new(&mut self.task).poll(cx));
        self.client = None;
        Poll::Ready(answer)
    }
}

impl<T> Drop for Awaited<T> {
    fn drop(&mut self) {
        if let Some(client) = &self.client {
            client.leaves();
        }
    }
}

/// Answers a request on a task of its own.
pub(super) fn spawn<F>(answering: F, mut hold: Hold) -> Awaited<F::Output>
where
    F: Future<Output: Send> + Send + 'static,
{
    let client = hold.client.take();
    let driven = async move {
        let answer = answering.await;
        // The callbacks are counted by now, so that the tracker is not idle in between.
        drop(hold);
        answer
    };
    #[cfg(feature = "tracing")]
    let driven = tracing::Instrument::in_current_span(driven);
    Awaited {
        task: tokio::spawn(driven),
        client,
    }
}

//! Drives a request to its end, whether or not its client still waits.

use std::{future::Future, sync::Arc};

use tokio::task::JoinHandle;

use crate::{drain::tracker::Tracker, sent::transmission::Transmission};

/// Keeps the tracker from being idle.
pub(super) struct Hold(Arc<Tracker>);

impl Hold {
    /// From now on, the shutdown of a server waits for it too.
    pub(super) fn new(tracker: Arc<Tracker>, transmission: Option<&Transmission>) -> Self {
        tracker.hold();
        if let Some(transmission) = transmission {
            transmission.drains(&tracker);
        }
        Self(tracker)
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.let_go();
    }
}

/// Answers a request on a task of its own.
pub(super) fn spawn<F>(answering: F, hold: Hold) -> JoinHandle<F::Output>
where
    F: Future<Output: Send> + Send + 'static,
{
    let driven = async move {
        let answer = answering.await;
        // The callbacks are counted by now, so that the tracker is not idle in between.
        drop(hold);
        answer
    };
    #[cfg(feature = "tracing")]
    let driven = tracing::Instrument::in_current_span(driven);
    tokio::spawn(driven)
}

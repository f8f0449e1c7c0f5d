//! What the connections of a server share.

use std::sync::Arc;

use super::{draining::Draining, shutdown_signal::ShutdownSignal, tracker::Tracker};

pub(crate) struct Server {
    pub(crate) shutdown: ShutdownSignal,
    /// The layers to drain; `None` without a graceful shutdown.
    pub(crate) drain: Option<Draining>,
}

impl Server {
    /// Adds a layer to the drain.
    pub(crate) fn drain_with(&self, tracker: &Arc<Tracker>) {
        if let Some(drain) = &self.drain {
            drain.add(tracker);
        }
    }
}

//! State that the connections of a server share.

use std::sync::Arc;

use super::{Drain, DrainSource, shutdown_signal::ShutdownSignal};

pub(crate) struct Server {
    pub(crate) shutdown: ShutdownSignal,
    /// The layers to drain; `None` without a graceful shutdown.
    pub(crate) drain: Option<Drain>,
}

impl Server {
    /// Adds a layer to the drain.
    pub(crate) fn drain_with(&self, source: &Arc<impl DrainSource + 'static>) {
        if let Some(drain) = &self.drain {
            drain.add(source);
        }
    }
}

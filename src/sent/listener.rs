//! A listener whose connections report what they have sent.

use std::{fmt, io, sync::Arc};

use axum::serve::Listener;

use super::io::SentIo;
use crate::drain::draining::Draining;

/// Wraps every connection that a listener accepts in a [`SentIo`].
///
/// [`serve`](crate::serve()) does this by itself; it is for accept loops of your own.
pub struct SentListener<L> {
    listener: L,
    draining: Option<Arc<Draining>>,
}

impl<L> SentListener<L> {
    /// Wraps a listener.
    pub fn new(listener: L) -> Self {
        Self {
            listener,
            draining: None,
        }
    }

    pub(crate) fn drained_by(listener: L, draining: Arc<Draining>) -> Self {
        Self {
            listener,
            draining: Some(draining),
        }
    }
}

impl<L: Listener> Listener for SentListener<L> {
    type Io = SentIo<L::Io>;
    type Addr = L::Addr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        let (io, address) = self.listener.accept().await;
        (SentIo::drained_by(io, self.draining.clone()), address)
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

impl<L: fmt::Debug> fmt::Debug for SentListener<L> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("SentListener")
            .field("listener", &self.listener)
            .finish_non_exhaustive()
    }
}

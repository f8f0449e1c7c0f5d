//! Holds callbacks and handlers up until the test lets them go on.

use std::sync::Arc;

use tokio::sync::{Semaphore, mpsc};

/// Shut until it is opened, and then open to all.
#[derive(Clone)]
pub(crate) struct Gate {
    arrives: mpsc::UnboundedSender<()>,
    open: Arc<Semaphore>,
}

pub(crate) type Arrivals = mpsc::UnboundedReceiver<()>;

impl Gate {
    pub(crate) fn new() -> (Self, Arrivals) {
        let (arrives, arrivals) = mpsc::unbounded_channel();
        let open = Arc::new(Semaphore::new(0));
        (Self { arrives, open }, arrivals)
    }

    pub(crate) async fn pass(self) {
        self.arrives.send(()).unwrap();
        // Given back, so that the next one gets through as well.
        drop(self.open.acquire().await.unwrap());
    }

    pub(crate) fn open(&self) {
        self.open.add_permits(1);
    }
}

//! A gate that stops callbacks and handlers until the test opens it.

use std::sync::Arc;

use tokio::sync::{Semaphore, mpsc};

/// Closed until it is opened, then open for all.
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
        // Returns the permit, so that the next caller can pass, too.
        drop(self.open.acquire().await.unwrap());
    }

    pub(crate) fn open(&self) {
        self.open.add_permits(1);
    }
}

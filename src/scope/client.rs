//! Whether the client of a request still waits for its response.

use tokio::sync::Semaphore;

/// The client of a request whose handler goes on without it.
pub(crate) struct Client {
    /// Has no permits; closed when the client has gone.
    here: Semaphore,
}

impl Default for Client {
    fn default() -> Self {
        Self {
            here: Semaphore::const_new(0),
        }
    }
}

impl Client {
    pub(crate) fn has_gone(&self) -> bool {
        self.here.is_closed()
    }

    pub(crate) fn leaves(&self) {
        self.here.close();
    }

    pub(crate) async fn gone(&self) {
        // There is nothing to acquire, so this ends in an error.
        let _ = self.here.acquire().await;
    }
}

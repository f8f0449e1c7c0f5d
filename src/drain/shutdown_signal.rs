//! The shutdown of a server, as its connections and the holders of a `Shutdown` see it.

use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::{TaskTracker, task_tracker::TaskTrackerToken},
};

/// The signal that begins a shutdown, and the guards that the server waits for.
#[derive(Clone, Default)]
pub(crate) struct ShutdownSignal {
    token: CancellationToken,
    guards: TaskTracker,
}

impl ShutdownSignal {
    /// Returns a guard that begins the shutdown when it is dropped.
    pub(crate) fn drop_guard(&self) -> DropGuard {
        self.token.clone().drop_guard()
    }

    /// Returns a token that is cancelled when the shutdown begins.
    pub(crate) fn token(&self) -> &CancellationToken {
        &self.token
    }

    /// Returns a guard for which the server waits.
    pub(crate) fn guard(&self) -> TaskTrackerToken {
        self.guards.token()
    }

    /// Returns the number of guards.
    pub(crate) fn guards(&self) -> usize {
        self.guards.len()
    }

    /// Waits until all guards are dropped.
    pub(crate) async fn wait_for_guards(&self) {
        self.guards.close();
        self.guards.wait().await;
    }
}

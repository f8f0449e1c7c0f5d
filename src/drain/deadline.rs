//! Waiting up to a deadline.

use std::future::Future;

use tokio::time::Instant;

/// Waits for a future, up to the deadline if there is one. Returns `true` if it was in time.
pub(crate) async fn timeout_at(deadline: Option<Instant>, future: impl Future) -> bool {
    match deadline {
        Some(deadline) => tokio::time::timeout_at(deadline, future).await.is_ok(),
        None => {
            future.await;
            true
        }
    }
}

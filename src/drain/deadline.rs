//! A time by which something has to be over.

use std::future::Future;

use tokio::time::Instant;

/// Waits for a future, until the deadline if there is one; whether it was in time.
pub(crate) async fn at_most_until(deadline: Option<Instant>, future: impl Future) -> bool {
    match deadline {
        Some(deadline) => tokio::time::timeout_at(deadline, future).await.is_ok(),
        None => {
            future.await;
            true
        }
    }
}

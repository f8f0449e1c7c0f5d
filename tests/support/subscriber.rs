//! A subscriber for one test.

use std::sync::LazyLock;

use tracing::{Dispatch, subscriber::DefaultGuard};
use tracing_subscriber::Registry;

/// Tells this subscriber what happens on this thread.
///
/// While a process has no more than one subscriber, tracing asks only that of the thread which
/// comes first to a callsite, and keeps the answer for all threads: one that nobody listens to
/// turns the callsite off for the test that listens on another. With two that are never dropped,
/// tracing asks all there are, under a lock.
pub(crate) fn listen(subscriber: impl Into<Dispatch>) -> DefaultGuard {
    static NEVER_ALONE: LazyLock<[Dispatch; 2]> =
        LazyLock::new(|| [(); 2].map(|()| Registry::default().into()));
    LazyLock::force(&NEVER_ALONE);
    tracing::dispatcher::set_default(&subscriber.into())
}

//! A subscriber for one test.

use std::sync::LazyLock;

use tracing::{Dispatch, subscriber::DefaultGuard};
use tracing_subscriber::Registry;

/// Sets the subscriber of this thread.
///
/// If a process has at most one subscriber, tracing asks only the thread that reaches a callsite first,
/// and caches the result for all threads. A thread without a subscriber would disable the callsite for
/// the tests on other threads. With two subscribers that are never dropped, tracing asks all of them.
pub(crate) fn listen(subscriber: impl Into<Dispatch>) -> DefaultGuard {
    static NEVER_ALONE: LazyLock<[Dispatch; 2]> =
        LazyLock::new(|| [(); 2].map(|()| Registry::default().into()));
    LazyLock::force(&NEVER_ALONE);
    tracing::dispatcher::set_default(&subscriber.into())
}

//! The end of each request for `DeferLayer::wait_until`.

use std::sync::Arc;

use http::Extensions;
use tokio_util::sync::CancellationToken;

use crate::{catch_panic::catch_panic, scope::options::WaitUntil};

/// A guard that calls the hook of [`DeferLayer::wait_until`](crate::DeferLayer::wait_until) when it is
/// dropped: when the head of the response is known, or there will be none.
pub(super) struct WaitUntilGuard {
    hook: Arc<WaitUntil>,
    /// The extensions before the layer adds its own, because that would keep the scope open.
    extensions: Extensions,
    closed: CancellationToken,
}

impl WaitUntilGuard {
    pub(super) fn new(
        hook: Arc<WaitUntil>,
        extensions: &Extensions,
        closed: CancellationToken,
    ) -> Self {
        Self {
            hook,
            extensions: extensions.clone(),
            closed,
        }
    }
}

impl Drop for WaitUntilGuard {
    fn drop(&mut self) {
        let closed = Box::pin(self.closed.clone().cancelled_owned());
        // A panic of the handler may drop this.
        let _ = catch_panic(|| (self.hook)(&self.extensions, closed));
    }
}

//! Tells when a scope is over: nothing runs in it, and nothing can be deferred to it any more.

use std::future::Future;

use tokio::sync::watch;

/// Kept by the scope as long as that is there; its drop is the news.
#[derive(Default)]
pub(crate) struct Idle(watch::Sender<()>);

impl Idle {
    /// Is ready when this has been dropped.
    pub(crate) fn wait(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut idle = self.0.subscribe();
        async move {
            // Nothing is ever sent, so this ends in an error.
            let _ = idle.changed().await;
        }
    }
}

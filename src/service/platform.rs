//! The platform that a request came through, which is told for how long the process is needed.

use std::{future::Future, pin::Pin, sync::Arc};

use http::Extensions;

use crate::{
    isolate::isolate,
    scope::{idle::Idle, options::WaitUntil},
};

/// What [`DeferLayer::wait_until`](crate::DeferLayer::wait_until) calls when this is dropped: once
/// the head of the response is known, or it is known that there will be none.
pub(super) struct Platform {
    hook: Arc<WaitUntil>,
    /// As the request came to the layer, so without the scope, which they would keep from its end.
    extensions: Extensions,
    idle: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl Platform {
    pub(super) fn new(hook: Arc<WaitUntil>, extensions: &Extensions, idle: &Idle) -> Self {
        Self {
            hook,
            extensions: extensions.clone(),
            idle: Some(Box::pin(idle.wait())),
        }
    }
}

impl Drop for Platform {
    fn drop(&mut self) {
        if let Some(idle) = self.idle.take() {
            // It may be dropped by a panic of the handler.
            let _ = isolate(|| (self.hook)(&self.extensions, idle));
        }
    }
}

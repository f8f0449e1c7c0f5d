//! Data of a request that its response needs.

use std::{fmt, sync::Arc};

use http::{Extensions, Response};
use http_body::Body;
use tokio_util::sync::CancellationToken;

use super::body::ResponseBody;
use crate::{
    catch_panic::catch_panic,
    response::{classify::CustomClassifier, end_of_body::Exchange},
    runner::completion_guard::CompletionGuard,
    scope::options::WaitUntil,
};

/// Kept from a request until its response.
pub(super) struct RequestContext {
    pub(super) exchange: Exchange,
    /// `true` if the response future hands the response to the server. Otherwise a task or a test
    /// drives the request, and the receiver calls [`ResponseBody::handed_off`].
    pub(super) is_last_hop: bool,
    /// Boxed, because few layers have it.
    pub(super) extra: Option<Box<Extra>>,
}

pub(super) struct Extra {
    pub(super) classifier: Option<CustomClassifier>,
    pub(super) wait_until: Option<WaitUntilGuard>,
}

impl Extra {
    pub(super) fn new(
        classifier: Option<CustomClassifier>,
        wait_until: Option<WaitUntilGuard>,
    ) -> Option<Box<Self>> {
        let is_needed = classifier.is_some() || wait_until.is_some();
        is_needed.then(|| {
            Box::new(Self {
                classifier,
                wait_until,
            })
        })
    }
}

impl RequestContext {
    #[inline]
    pub(super) fn into_response<B>(
        self,
        response: Response<B>,
        guard: CompletionGuard,
    ) -> Response<ResponseBody<B>>
    where
        B: Body<Error: fmt::Display> + Send + 'static,
    {
        let classifier = self.extra.and_then(|extra| extra.classifier);
        ResponseBody::wrap(response, self.exchange, classifier, guard, self.is_last_hop)
    }

    /// Records that the head of the response is known, or that there will be none.
    #[inline]
    pub(super) fn head_ready(&mut self, guard: &CompletionGuard) {
        if let Some(scope) = guard.scope() {
            scope.head_ready();
        }
        if let Some(extra) = &mut self.extra {
            extra.wait_until = None;
        }
    }
}

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

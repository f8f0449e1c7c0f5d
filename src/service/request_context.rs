//! Data of a request that its response needs.

use std::fmt;

use http::Response;
use http_body::Body;

use super::{body::ResponseBody, wait_until::WaitUntilGuard};
use crate::{
    response::{classify::CustomClassifier, end_of_body::Exchange},
    runner::completion_guard::CompletionGuard,
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

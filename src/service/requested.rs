//! What of a request its response needs.

use http::Response;
use http_body::Body;

use super::{body::ResponseBody, platform::Platform};
use crate::{
    response::{classify::Classifier, end_of_body::Exchange},
    runner::completer::Completer,
};

/// What is kept of a request until there is a response.
pub(super) struct Requested {
    pub(super) classifier: Classifier,
    pub(super) exchange: Exchange,
    /// Who polls this takes the response to the server; else it is a task that drives the request
    /// to its end, or a test, and whoever takes the response from there says when it
    /// [does](ResponseBody::handed_over).
    pub(super) hands_over: bool,
    /// Boxed, so that it takes no room where it is not used.
    pub(super) platform: Option<Box<Platform>>,
}

impl Requested {
    #[inline]
    pub(super) fn answer<B: Body>(
        self,
        response: Response<B>,
        completer: Completer,
    ) -> Response<ResponseBody<B>> {
        let mut response = ResponseBody::wrap(response, self.exchange, self.classifier, completer);
        if self.hands_over {
            response.body_mut().handed_over();
        }
        response
    }

    /// There is a response, or it is known that there will be none.
    #[inline]
    pub(super) fn is_answered(&mut self, completer: &Completer) {
        if let Some(scope) = completer.scope() {
            scope.answered();
            scope.watch_if_shared();
        }
        self.platform = None;
    }
}

//! What of a request its response needs.

use http::Response;
use http_body::Body;

use super::{body::ResponseBody, platform::Platform};
use crate::{
    response::{classify::CustomClassifier, end_of_body::Exchange},
    runner::completer::Completer,
};

/// What is kept of a request until there is a response.
pub(super) struct Requested {
    pub(super) exchange: Exchange,
    /// Who polls this takes the response to the server; else it is a task that drives the request
    /// to its end, or a test, and whoever takes the response from there says when it
    /// [does](ResponseBody::handed_over).
    pub(super) hands_over: bool,
    /// Boxed, so that it takes no room where it is not used.
    pub(super) beside: Option<Box<Beside>>,
}

/// What few layers have.
pub(super) struct Beside {
    pub(super) classifier: Option<CustomClassifier>,
    pub(super) platform: Option<Platform>,
}

impl Beside {
    pub(super) fn of(
        classifier: Option<CustomClassifier>,
        platform: Option<Platform>,
    ) -> Option<Box<Self>> {
        let is_used = classifier.is_some() || platform.is_some();
        is_used.then(|| {
            Box::new(Self {
                classifier,
                platform,
            })
        })
    }
}

impl Requested {
    #[inline]
    pub(super) fn answer<B: Body>(
        self,
        response: Response<B>,
        completer: Completer,
    ) -> Response<ResponseBody<B>> {
        let classifier = self.beside.and_then(|beside| beside.classifier);
        ResponseBody::wrap(
            response,
            self.exchange,
            classifier,
            completer,
            self.hands_over,
        )
    }

    /// There is a response, or it is known that there will be none.
    #[inline]
    pub(super) fn is_answered(&mut self, completer: &Completer) {
        if let Some(scope) = completer.scope() {
            scope.answered();
            scope.watch_if_shared();
        }
        if let Some(beside) = &mut self.beside {
            beside.platform = None;
        }
    }
}

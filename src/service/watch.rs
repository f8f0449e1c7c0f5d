//! The state of a response body until its end.

use std::sync::Arc;

use http::{HeaderMap, Response};
use http_body::Body;

use crate::{
    catch_panic::catch_panic,
    completion::Delivery,
    observe::text::OneLine,
    response::{
        classify::{Classified, Classifier, CustomClassifier, EndClassifier, grpc_status},
        end_of_body::{EndOfBody, Exchange, Progress},
    },
    runner::completion_guard::CompletionGuard,
    scope::{Current, Scope},
};

/// The state of the body. It decides the scope once: at the end of the body, or when it is dropped.
#[derive(Default)]
pub(super) struct Watch {
    pub(super) guard: Option<CompletionGuard>,
    pub(super) end: EndOfBody,
    /// `Some` if the end of the stream distinguishes success from failure. Boxed, because most
    /// responses have none, and each is moved several times.
    pub(super) at_end: Option<Box<EndClassifier>>,
    pub(super) ends_at_hand_off: bool,
    pub(super) handed_off: bool,
    /// A task discards the frames, because the client has disconnected.
    pub(super) is_abandoned: bool,
    /// The scope, if it was decided before the end of the stream. An outer layer may still poll the
    /// body, and the body may still defer.
    pub(super) late_scope: Option<Arc<Scope>>,
    /// The stream has stalled, and a task drives the body to its end.
    pub(super) is_moved: bool,
}

impl Watch {
    /// Classifies the head of a response.
    #[inline]
    pub(super) fn of<B: Body>(
        response: &mut Response<B>,
        exchange: Exchange,
        classifier: Option<CustomClassifier>,
        mut guard: CompletionGuard,
    ) -> Self {
        let classifier = match guard.scope() {
            Some(scope) => scope.options.classification.of_response(classifier),
            None => Classifier::Status,
        };
        let Classified { is_success, at_end } = classifier.classify(response);
        guard.verdict.status = Some(response.status());
        guard.verdict.grpc_status = grpc_status(response.headers());
        guard.verdict.success = is_success;
        let end = EndOfBody::of(exchange, response);
        Self {
            guard: Some(guard),
            ends_at_hand_off: end.has_ended_unpolled(response.body()),
            end,
            at_end: at_end.map(Box::new),
            handed_off: false,
            is_abandoned: false,
            late_scope: None,
            is_moved: false,
        }
    }

    /// Returns `true` if the response is not decided, and a server would have to poll the body further.
    pub(super) fn is_unfinished(&self) -> bool {
        let needs_trailers = self.at_end.is_some();
        self.guard.is_some() && !self.ends_at_hand_off && !self.end.may_be_dropped(needs_trailers)
    }

    pub(super) fn late_scope(&self) -> Option<Current> {
        self.late_scope.clone().map(Current::external)
    }

    pub(super) fn keep_scope(&mut self) {
        if let Some(guard) = &self.guard {
            self.late_scope = guard.scope().cloned();
        }
    }

    /// Records that the body has ended on its own.
    #[inline]
    pub(super) fn ended(&mut self, trailers: Option<&HeaderMap>) {
        let delivery = match self.end.end() {
            Progress::Short => {
                self.set_error(|| "the body ended before its declared length".to_owned());
                Delivery::BodyError
            }
            Progress::Ended | Progress::Continues => Delivery::Complete,
        };
        self.complete(delivery, trailers);
    }

    /// The body returned an error or panicked.
    pub(super) fn failed(&mut self, text: impl FnOnce() -> String) {
        self.set_error(text);
        self.complete(Delivery::BodyError, None);
    }

    fn set_error(&mut self, text: impl FnOnce() -> String) {
        if let Some(guard) = &mut self.guard {
            // `Display` is user code.
            let text = catch_panic(text).unwrap_or_else(|message| OneLine(message).to_string());
            guard.verdict.body_error = Some(text.into());
        }
    }

    #[inline]
    pub(super) fn complete(&mut self, delivery: Delivery, trailers: Option<&HeaderMap>) {
        let Some(mut guard) = self.guard.take() else {
            return;
        };
        guard.verdict.body_finished = delivery == Delivery::Complete;
        guard.verdict.delivery = match self.is_abandoned {
            true => Delivery::Aborted,
            false => delivery,
        };
        if let Some(trailers) = trailers {
            guard.verdict.grpc_status = grpc_status(trailers).or(guard.verdict.grpc_status);
        }
        if let Some(at_end) = self.at_end.take() {
            let classified = at_end.is_success(trailers);
            guard.verdict.success = match trailers {
                Some(_) => classified,
                None => classified && guard.verdict.success && delivery != Delivery::BodyError,
            };
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let is_finished = !self.is_unfinished();
        if let Some(guard) = &mut self.guard {
            let needs_trailers = self.at_end.is_some();
            let whole = self.handed_off && self.end.may_be_dropped(needs_trailers);
            guard.verdict.body_finished = is_finished;
            guard.verdict.delivery = if whole && !self.is_abandoned {
                Delivery::Complete
            } else {
                Delivery::Aborted
            };
        }
    }
}

//! Feature `tracing`: a span per callback, and events for callbacks that fail or never run.

use std::{
    collections::HashSet,
    panic::Location,
    sync::{Arc, Mutex, PoisonError},
};

use ::tracing::{
    Level, Span, debug, debug_span, enabled, error, field, info_span, level_filters::LevelFilter,
    span::Id, warn,
};

use super::{
    callback_info::CallbackInfo,
    outcome::{Finished, LostReason, Outcome},
    scope_info::RequestInfo,
};
use crate::completion::Completion;

/// A function that creates the span of a callback.
pub(crate) type MakeSpan = dyn Fn(&CallbackInfo<'_>) -> Span + Send + Sync;

/// Returns `true` twice if a subscriber may log failures, and if it may record spans.
#[inline]
pub(crate) fn interest() -> (bool, bool) {
    let max_level = LevelFilter::current();
    (
        max_level >= LevelFilter::ERROR,
        max_level >= LevelFilter::INFO,
    )
}

/// Creates the span of a callback when it is registered, because a span can only follow from a span
/// that is still open. `None` if no subscriber records it.
///
/// The level is `INFO` if the current span is enabled, so that log lines of callbacks name their
/// request exactly when those of the handler do.
pub(crate) fn span(callback: &CallbackInfo<'_>, make: Option<&MakeSpan>) -> Option<Span> {
    let current = Span::current();
    let request = callback.request();
    let method = request.map(|request| request.method().as_str());
    let path = request.map(|request| request.route().unwrap_or(request.path()));
    let request_id = request.and_then(RequestInfo::id);
    // `callback` is recorded when the name is final.
    let span = match make {
        Some(make) => make(callback),
        None if current.is_none() => debug_span!(
            parent: None,
            "deferred",
            callback = field::Empty,
            method,
            path,
            request_id,
        ),
        None => info_span!(
            parent: None,
            "deferred",
            callback = field::Empty,
            method,
            path,
            request_id,
        ),
    };
    if span.is_disabled() {
        return None;
    }
    span.follows_from(current);
    Some(span)
}

/// Records the name of a callback once, when it is final.
pub(crate) fn record_name(callback: &CallbackInfo<'_>) {
    if let (Some(span), Some(name)) = (callback.span, callback.name) {
        span.record("callback", name);
    }
}

/// Emits an event that names its callback and its request without any span.
macro_rules! callback_event {
    ($event:ident, $callback:expr, $message:literal $(, $($field:tt)+)?) => {{
        let callback: &CallbackInfo<'_> = $callback;
        let request = callback.request();
        let parent: Option<Id> = callback.span.and_then(Span::id);
        $event!(
            parent: parent,
            callback = callback.name.unwrap_or("unnamed"),
            method = request.map(|request| request.method().as_str()),
            path = request.map(|request| request.route().unwrap_or(request.path())),
            request_id = request.and_then(RequestInfo::id),
            location = %callback.location,
            $($($field)+,)?
            $message
        );
    }};
}

pub(crate) fn finished(callback: &CallbackInfo<'_>, finished: &Finished<'_>) {
    if !matches!(finished.outcome, Outcome::Ok) {
        callback_event!(
            error,
            callback,
            "deferred callback failed",
            outcome = %finished.outcome,
            run_time = ?finished.run_time
        );
    }
}

/// The call sites that have lost a callback to a failed response, if these are logged.
#[derive(Clone)]
pub(crate) struct FirstSkips(Option<Arc<Mutex<HashSet<&'static Location<'static>>>>>);

impl Default for FirstSkips {
    fn default() -> Self {
        Self(Some(Arc::default()))
    }
}

impl FirstSkips {
    pub(crate) fn off() -> Self {
        Self(None)
    }

    fn is_first(&self, callback: &CallbackInfo<'_>) -> bool {
        self.0.as_ref().is_some_and(|sites| {
            let mut sites = sites.lock().unwrap_or_else(PoisonError::into_inner);
            sites.insert(callback.location)
        })
    }
}

pub(crate) fn skipped(callback: &CallbackInfo<'_>, completion: &Completion, first: &FirstSkips) {
    let status = completion.status().map(|status| status.as_u16());
    if callback.uses_default_rule
        && !completion.is_success()
        && enabled!(Level::WARN)
        && first.is_first(callback)
    {
        callback_event!(
            warn,
            callback,
            "deferred callback skipped because the response failed; add `.always()` to run it after \
             failures, too (logged once per call site)",
            status,
            delivery = ?completion.delivery()
        );
        return;
    }
    callback_event!(
        debug,
        callback,
        "deferred callback skipped",
        status,
        success = completion.is_success(),
        delivery = ?completion.delivery()
    );
}

pub(crate) fn cancelled(callback: &CallbackInfo<'_>) {
    callback_event!(debug, callback, "deferred callback cancelled");
}

pub(crate) fn replaced(callback: &CallbackInfo<'_>) {
    callback_event!(
        debug,
        callback,
        "deferred callback replaced by a later one of the same name"
    );
}

pub(crate) fn deduplicated(callback: &CallbackInfo<'_>) {
    callback_event!(
        debug,
        callback,
        "deferred callback not run, because one of its name is queued or running"
    );
}

pub(crate) fn lost(callback: &CallbackInfo<'_>, reason: LostReason) {
    callback_event!(error, callback, "deferred callback lost", %reason);
}

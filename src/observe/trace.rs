//! Feature `tracing`: a span per callback, and an event for each that fails or never runs.

use tracing::{Span, debug, error, field, level_filters::LevelFilter, span::Id};

use super::{
    callback_info::CallbackInfo,
    outcome::{Finished, LostReason, Outcome},
    phase::Phase,
    scope_info::RequestInfo,
};
use crate::completion::Completion;

/// Makes the span of a callback.
pub(crate) type MakeSpan = dyn Fn(&CallbackInfo<'_>) -> Span + Send + Sync;

/// Whether anybody may listen to spans.
#[inline]
pub(crate) fn is_heard() -> bool {
    LevelFilter::current() >= LevelFilter::INFO
}

/// Whether anybody may listen to what fails.
#[inline]
pub(crate) fn hears_failures() -> bool {
    LevelFilter::current() >= LevelFilter::ERROR
}

/// Made when the callback is registered, because a span can only follow from one that is still
/// open, and the request's own may close as soon as the response ends. `None` where nobody
/// listens, which costs nothing from then on.
pub(crate) fn span(callback: &CallbackInfo<'_>, make: Option<&MakeSpan>) -> Option<Span> {
    let span = match make {
        Some(make) => make(callback),
        None => deferred(callback),
    };
    if span.is_disabled() {
        return None;
    }
    span.follows_from(Span::current());
    Some(span)
}

fn deferred(callback: &CallbackInfo<'_>) -> Span {
    let request = callback.request();
    tracing::info_span!(
        parent: None,
        "deferred",
        method = request.map(|request| request.method().as_str()),
        path = request.map(|request| request.route().unwrap_or(request.path())),
        request_id = request.and_then(RequestInfo::id),
        scope = callback.scope(),
        // Most of them run after it.
        phase = (callback.phase == Phase::Before).then_some("before"),
        name = field::Empty,
        place = %callback.location,
        outcome = field::Empty,
    )
}

fn record(callback: &CallbackInfo<'_>, outcome: &'static str) {
    if let Some(span) = callback.span {
        span.record("outcome", outcome);
    }
}

/// Names the span. Subscribers may keep all values that a field is given, so this is called
/// once, when the name is final.
pub(crate) fn record_name(callback: &CallbackInfo<'_>) {
    if let (Some(span), Some(name)) = (callback.span, callback.name) {
        span.record("name", name);
    }
}

fn parent(callback: &CallbackInfo<'_>) -> Option<Id> {
    callback.span.and_then(Span::id)
}

fn name<'a>(callback: &CallbackInfo<'a>) -> &'a str {
    callback.name.unwrap_or("unnamed")
}

pub(crate) fn finished(callback: &CallbackInfo<'_>, finished: &Finished<'_>) {
    record(callback, finished.outcome.label());
    if !matches!(finished.outcome, Outcome::Ok) {
        error!(
            parent: parent(callback),
            callback = name(callback),
            place = %callback.location,
            outcome = %finished.outcome,
            took = ?finished.took,
            "deferred callback failed",
        );
    }
}

pub(crate) fn skipped(callback: &CallbackInfo<'_>, completion: &Completion) {
    record(callback, "skipped");
    debug!(
        parent: parent(callback),
        callback = name(callback),
        place = %callback.location,
        status = completion.status().map(|status| status.as_u16()),
        success = completion.is_success(),
        delivery = ?completion.delivery(),
        "deferred callback skipped",
    );
}

pub(crate) fn cancelled(callback: &CallbackInfo<'_>) {
    record(callback, "cancelled");
    debug!(
        parent: parent(callback),
        callback = name(callback),
        place = %callback.location,
        "deferred callback cancelled",
    );
}

pub(crate) fn replaced(callback: &CallbackInfo<'_>) {
    record(callback, "replaced");
    debug!(
        parent: parent(callback),
        callback = name(callback),
        place = %callback.location,
        "deferred callback replaced by a later one of the same name",
    );
}

pub(crate) fn duplicate(callback: &CallbackInfo<'_>) {
    record(callback, "duplicate");
    debug!(
        parent: parent(callback),
        callback = name(callback),
        place = %callback.location,
        "deferred callback not run: one of its name is pending or running",
    );
}

pub(crate) fn lost(callback: &CallbackInfo<'_>, reason: LostReason) {
    record(callback, "lost");
    error!(
        parent: parent(callback),
        callback = name(callback),
        place = %callback.location,
        %reason,
        "deferred callback lost",
    );
}

//! Feature `tracing`: a span per callback, and an event for each that fails or never runs.

use std::panic::Location;

use tracing::{Span, debug, error, field, level_filters::LevelFilter, span::Id};

use super::{Finished, LostReason, Outcome};
use crate::{callback::Header, completion::Completion};

/// Made when the callback is registered, because a span can only follow from one that is still
/// open, and the request's own may close as soon as the response ends. `None` where nobody
/// listens, which costs nothing from then on.
pub(crate) fn span(location: &'static Location<'static>) -> Option<Span> {
    if LevelFilter::current() < LevelFilter::INFO {
        return None;
    }
    let span = tracing::info_span!(
        parent: None,
        "deferred",
        name = field::Empty,
        place = %location,
        outcome = field::Empty,
    );
    if span.is_disabled() {
        return None;
    }
    span.follows_from(Span::current());
    Some(span)
}

fn record(header: &Header, outcome: &'static str) {
    if let Some(span) = &header.span {
        span.record("outcome", outcome);
    }
}

/// Names the span. Subscribers may keep all values that a field is given, so this is called
/// once, when the name is final.
pub(crate) fn record_name(header: &Header) {
    if let (Some(span), Some(name)) = (&header.span, header.name.as_deref()) {
        span.record("name", name);
    }
}

fn parent(header: &Header) -> Option<Id> {
    header.span.as_ref().and_then(Span::id)
}

fn name(header: &Header) -> &str {
    header.name.as_deref().unwrap_or("unnamed")
}

pub(crate) fn finished(header: &Header, finished: &Finished<'_>) {
    record(header, finished.outcome.label());
    if !matches!(finished.outcome, Outcome::Ok) {
        error!(
            parent: parent(header),
            callback = name(header),
            place = %header.location,
            outcome = %finished.outcome,
            took = ?finished.took,
            "deferred callback failed",
        );
    }
}

pub(crate) fn skipped(header: &Header, completion: &Completion) {
    record(header, "skipped");
    debug!(
        parent: parent(header),
        callback = name(header),
        place = %header.location,
        status = completion.status().map(|status| status.as_u16()),
        success = completion.is_success(),
        delivery = ?completion.delivery(),
        "deferred callback skipped",
    );
}

pub(crate) fn cancelled(header: &Header) {
    record(header, "cancelled");
    debug!(
        parent: parent(header),
        callback = name(header),
        place = %header.location,
        "deferred callback cancelled",
    );
}

pub(crate) fn replaced(header: &Header) {
    record(header, "replaced");
    debug!(
        parent: parent(header),
        callback = name(header),
        place = %header.location,
        "deferred callback replaced by a later one of the same name",
    );
}

pub(crate) fn lost(header: &Header, reason: LostReason) {
    record(header, "lost");
    error!(
        parent: parent(header),
        callback = name(header),
        place = %header.location,
        %reason,
        "deferred callback lost",
    );
}

//! The views of the page. Each item is an element with a key, so that the browser can replace it.

use std::{
    fmt::{Display, Write},
    panic::Location,
    time::Duration,
};

use axum_defer::Delivery;

use crate::{
    html::{Span, Text, Time},
    names::NameStats,
    record::Failure,
    snapshot::{Clock, Snapshot, Unfinished},
    sparkline, waterfall,
};

/// An element, and its key: the value of its attribute `id`.
pub(crate) type Item = (String, String);

/// Returns the running callbacks, then the pending ones.
pub(crate) fn now(snapshot: &Snapshot) -> Vec<Item> {
    let clock = &snapshot.clock;
    let ages = snapshot.unfinished.iter().map(|item| age(clock, item));
    let oldest = ages.max().unwrap_or_default();
    let items = snapshot.unfinished.iter();
    items.map(|item| unfinished(clock, item, oldest)).collect()
}

pub(crate) fn requests(snapshot: &Snapshot) -> Vec<Item> {
    let items = snapshot.requests.iter();
    items
        .map(|item| waterfall::request(&snapshot.clock, item))
        .collect()
}

pub(crate) fn failures(snapshot: &Snapshot) -> Vec<Item> {
    let items = snapshot.failures.iter();
    items.map(|item| failure(&snapshot.clock, item)).collect()
}

pub(crate) fn names(snapshot: &Snapshot) -> Vec<Item> {
    let names = snapshot.names.iter();
    names
        .map(|(index, stats)| by_name(*index, stats, snapshot.bar))
        .collect()
}

/// Returns the counts above the views.
pub(crate) fn totals(snapshot: &Snapshot) -> String {
    let counts = &snapshot.counts;
    let mut html = String::new();
    for (key, label, count) in [
        ("running", "running", counts.running()),
        ("pending", "pending", counts.pending()),
        ("ok", "succeeded", counts.ok),
        ("failed", "failed", counts.failed),
        ("lost", "lost", counts.lost),
        ("skipped", "did not run", counts.did_not_run),
    ] {
        let none = if count == 0 { " none" } else { "" };
        let _ = write!(
            html,
            "<div class=\"total {key}{none}\"><dt>{label}</dt><dd>{count}</dd></div>"
        );
    }
    html
}

/// Describes the limits of the record, and what they removed from the page.
pub(crate) fn limits(snapshot: &Snapshot) -> String {
    let counts = &snapshot.counts;
    let mut html = format!(
        "Keeps the last {} requests that deferred something, and {} failures.",
        snapshot.max_requests, snapshot.max_failures
    );
    for (count, what) in [
        (snapshot.requests_evicted, "older requests were evicted"),
        (counts.failures_evicted, "older failures were evicted"),
        (
            counts.callbacks_not_recorded,
            "callbacks were counted but not recorded, because the record was full",
        ),
        (
            counts.events_dropped,
            "events were dropped; their callbacks may appear unfinished",
        ),
    ] {
        if count > 0 {
            let _ = write!(html, " <strong>{count}</strong> {what}.");
        }
    }
    html
}

fn age(clock: &Clock, unfinished: &Unfinished) -> Duration {
    let callback = &unfinished.callback;
    clock.since(callback.started_at.unwrap_or(callback.registered_at))
}

fn unfinished(clock: &Clock, unfinished: &Unfinished, oldest: Duration) -> Item {
    let callback = &unfinished.callback;
    let state = callback.state();
    let since = match callback.started_at {
        Some(_) => "running for",
        None if unfinished.is_completed => "queued for",
        None => "waiting for the response for",
    };
    let age = age(clock, unfinished);
    let key = format!("callback-{}", callback.id);
    let html = format!(
        "<li id=\"{key}\" class=\"item {state}\" data-name=\"{}\" data-route=\"{}\" \
         data-outcome=\"{state}\">\
         <div class=\"line\"><span class=\"badge {state}\">{state}</span> {} \
         <span class=\"age\"><span class=\"quiet\">{since}</span> {}</span></div>\
         <svg class=\"bar\" aria-hidden=\"true\"><rect class=\"{state}\" width=\"{:.2}%\" \
         height=\"100%\" rx=\"3\"/></svg>\
         <div class=\"line quiet\"><code>{}</code> {}</div></li>",
        filter_name(callback.name.as_deref(), callback.location),
        Text(&unfinished.route),
        name(callback.name.as_deref(), "unnamed"),
        Span(age),
        percent(age, oldest).max(0.5),
        Text(callback.location),
        link(unfinished.scope, &unfinished.request),
    );
    (key, html)
}

fn failure(clock: &Clock, failure: &Failure) -> Item {
    let key = format!("failure-{}", failure.number);
    let callback = &failure.callback;
    let label = failure.outcome.label();
    let mut html = format!(
        "<li id=\"{key}\" class=\"item failing\" data-name=\"{}\" data-route=\"{}\" \
         data-outcome=\"{label}\"><div class=\"line\"><span class=\"badge {label}\">{}</span> \
         {} <span class=\"age\">{}</span></div><pre>{}</pre><div class=\"line quiet\">\
         <code>{}</code> {}",
        filter_name(callback.name.as_deref(), callback.location),
        Text(&failure.route),
        label.replace('_', " "),
        name(callback.name.as_deref(), "unnamed"),
        Time(clock.time_of(failure.at)),
        Text(&failure.text),
        Text(callback.location),
        link(failure.scope, &failure.request),
    );
    if let Some(times) = failure.times {
        let (queued, duration) = (Span(times.queued), Span(times.duration));
        let _ = write!(html, " queued {queued}, ran {duration}");
    }
    let _ = write!(html, ", {} the response</div></li>", callback.phase);
    (key, html)
}

fn by_name(index: usize, name: &NameStats, bar: u64) -> Item {
    let key = format!("name-{index}");
    let outcome = if name.failed > 0 { "ok error" } else { "ok" };
    let label = Text(&name.label);
    let mut html = format!(
        "<tr id=\"{key}\" data-name=\"{label}\" data-route=\"\" data-outcome=\"{outcome}\">\
         <th scope=\"row\"><b class=\"name\">{label}</b>"
    );
    if let Some(location) = name.location.filter(|_| name.is_named) {
        let _ = write!(html, "<br><code class=\"quiet\">{}</code>", Text(location));
    }
    let failing = if name.failed > 0 {
        " class=\"failing\""
    } else {
        ""
    };
    let _ = write!(
        html,
        "</th><td data-label=\"ran\">{}</td><td data-label=\"failed\"{failing}>{}</td>\
         <td data-label=\"did not run\">{}</td>",
        name.ran, name.failed, name.did_not_run
    );
    for (label, histogram) in [("queued", &name.queued), ("duration", &name.duration)] {
        let [p50, p95, p99] = histogram.percentiles().map(Span);
        let _ = write!(
            html,
            "<td class=\"times\" data-label=\"{label}\"><span>{p50}</span> <span>{p95}</span> \
             <span>{p99}</span></td>"
        );
    }
    let _ = write!(
        html,
        "<td class=\"recent\" data-label=\"last 5 minutes\">{}</td></tr>",
        sparkline::svg(&name.sparkline, bar)
    );
    (key, html)
}

// ── Shared elements ─────────────────────────────────────────────────────────────────────────────

pub(crate) fn name(name: Option<&str>, unnamed: &str) -> String {
    match name {
        Some(name) => format!("<b class=\"name\">{}</b>", Text(name)),
        None => format!("<b class=\"name unnamed\">{}</b>", Text(unnamed)),
    }
}

/// Returns the text that the name filter searches.
pub(crate) fn filter_name(name: Option<&str>, location: &Location<'_>) -> String {
    match name {
        Some(name) => Text(name).to_string(),
        None => Text(location).to_string(),
    }
}

pub(crate) fn percent(part: Duration, whole: Duration) -> f64 {
    if whole.is_zero() {
        return 0.0;
    }
    (part.as_secs_f64() / whole.as_secs_f64() * 100.0).min(100.0)
}

pub(crate) fn delivery_label(delivery: Delivery) -> &'static str {
    match delivery {
        Delivery::Complete => "complete",
        Delivery::Aborted => "aborted",
        Delivery::BodyError => "body_error",
        Delivery::Pending => "pending",
        Delivery::NoResponse => "no_response",
        _ => "unknown",
    }
}

fn link(scope: u64, request: impl Display) -> String {
    format!(
        "<a href=\"#request-{scope}\">{} <span class=\"number\">#{scope}</span></a>",
        Text(request)
    )
}

//! What the page shows: each request, callback, failure and name as an element with a key.

use std::{fmt::Write, time::Duration};

use tokio::time::Instant;

use super::{
    end::End,
    html::{Span, Text, Time},
    record::Failure,
    request::{Callback, Request},
    snapshot::{Clock, Name, Snapshot, Unfinished},
};
use crate::{
    completion::{Completion, Delivery},
    observe::phase::Phase,
};

/// An element, and the key under which a newer one takes its place.
pub(super) type Part = (String, String);

pub(super) fn totals(snapshot: &Snapshot) -> String {
    let counts = &snapshot.counts;
    let mut html = String::new();
    for (key, label, count) in [
        ("running", "running", counts.running()),
        ("pending", "pending", counts.pending()),
        ("ok", "ran well", counts.ok),
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

/// What is not shown, in words.
pub(super) fn bounds(snapshot: &Snapshot) -> String {
    let counts = &snapshot.counts;
    let mut html = format!(
        "Keeps the last {} requests that deferred something, and {} failures.",
        snapshot.limits.requests, snapshot.limits.failures
    );
    for (count, what) in [
        (
            snapshot.requests_fallen_out,
            "older requests have fallen out",
        ),
        (counts.failures_fallen_out, "older failures have fallen out"),
        (
            counts.unrecorded,
            "callbacks are counted and not shown: there was no room",
        ),
        (
            snapshot.dropped,
            "events were dropped: what they were about may look unfinished",
        ),
    ] {
        if count > 0 {
            let _ = write!(html, " <strong>{count}</strong> {what}.");
        }
    }
    html
}

// ── Now ─────────────────────────────────────────────────────────────────────────────────────────

pub(super) fn now(snapshot: &Snapshot) -> Vec<Part> {
    let clock = &snapshot.clock;
    let ages = snapshot.unfinished.iter().map(|item| age(clock, item));
    let oldest = ages.max().unwrap_or_default();
    let items = snapshot.unfinished.iter();
    items.map(|item| unfinished(clock, item, oldest)).collect()
}

fn age(clock: &Clock, callback: &Unfinished) -> Duration {
    clock.since(callback.started.unwrap_or(callback.registered))
}

fn unfinished(clock: &Clock, callback: &Unfinished, oldest: Duration) -> Part {
    let (state, since) = match callback.started {
        Some(_) => ("running", "running for"),
        None if callback.is_over => ("pending", "waits for its turn for"),
        None => ("pending", "waits for the response for"),
    };
    let age = age(clock, callback);
    let key = format!("callback-{}", callback.id);
    let name = name(callback.name.as_deref());
    let html = format!(
        "<li id=\"{key}\" class=\"item {state}\" data-name=\"{}\" data-route=\"{}\" \
         data-outcome=\"{state}\">\
         <div class=\"line\"><span class=\"badge {state}\">{state}</span> {name} \
         <span class=\"age\"><span class=\"quiet\">{since}</span> {}</span></div>\
         <svg class=\"bar\" aria-hidden=\"true\"><rect class=\"{state}\" width=\"{:.2}%\" \
         height=\"100%\" rx=\"3\"/></svg>\
         <div class=\"line quiet\"><code>{}</code> {}</div></li>",
        filtered(callback.name.as_deref(), callback.place),
        Text(&callback.route),
        Span(age),
        share(age, oldest).max(0.5),
        Text(callback.place),
        link(callback.request, &callback.label),
    );
    (key, html)
}

fn name(name: Option<&str>) -> String {
    match name {
        Some(name) => format!("<b class=\"name\">{}</b>", Text(name)),
        None => "<b class=\"name unnamed\">unnamed</b>".to_owned(),
    }
}

/// By what a callback is found.
fn filtered(name: Option<&str>, place: impl std::fmt::Display) -> String {
    match name {
        Some(name) => Text(name).to_string(),
        None => Text(place).to_string(),
    }
}

fn link(request: u64, label: &str) -> String {
    format!(
        "<a href=\"#request-{request}\">{} <span class=\"number\">#{request}</span></a>",
        Text(label)
    )
}

/// In per cent.
fn share(part: Duration, whole: Duration) -> f64 {
    if whole.is_zero() {
        return 0.0;
    }
    (part.as_secs_f64() / whole.as_secs_f64() * 100.0).min(100.0)
}

// ── Requests ────────────────────────────────────────────────────────────────────────────────────

pub(super) fn requests(snapshot: &Snapshot) -> Vec<Part> {
    let items = snapshot.requests.iter();
    items.map(|item| request(&snapshot.clock, item)).collect()
}

/// Where the moments of a request are in its picture.
struct Axis {
    from: Instant,
    length: Duration,
}

impl Axis {
    fn of(clock: &Clock, request: &Request) -> Self {
        let mut end = request.answered.unwrap_or_default();
        if let Some(completion) = &request.completion {
            end = end.max(completion.elapsed());
        }
        for callback in &request.callbacks {
            let ended = callback.ended.map_or(clock.now, |(at, _)| at);
            end = end.max(ended.saturating_duration_since(request.arrived));
        }
        Self {
            from: request.arrived,
            length: end,
        }
    }

    fn place(&self, at: Instant) -> f64 {
        share(at.saturating_duration_since(self.from), self.length)
    }

    /// A bar from one moment to another, wide enough to be seen.
    fn bar(&self, html: &mut String, class: &str, from: Instant, to: Instant) {
        let width = (self.place(to) - self.place(from)).max(0.8);
        let x = self.place(from).min(100.0 - width);
        let (y, height) = if class == "waiting" {
            (42, 16)
        } else {
            (12, 76)
        };
        let _ = write!(
            html,
            "<rect class=\"{class}\" x=\"{x:.2}%\" y=\"{y}%\" width=\"{width:.2}%\" \
             height=\"{height}%\" rx=\"2\"/>"
        );
    }
}

fn request(clock: &Clock, request: &Request) -> Part {
    let key = format!("request-{}", request.number);
    let axis = Axis::of(clock, request);
    let callbacks = &request.callbacks;
    let names = callbacks
        .iter()
        .map(|callback| filtered(callback.name.as_deref(), callback.place));
    let outcomes = callbacks.iter().map(outcome);
    let worst = if callbacks
        .iter()
        .any(|callback| callback.ended.is_some_and(|(_, end)| end.is_failure()))
    {
        " failing"
    } else {
        ""
    };
    let mut html = format!(
        "<li id=\"{key}\" class=\"item request{worst}\" tabindex=\"-1\" data-name=\"{}\" data-route=\"{}\" \
         data-outcome=\"{}\"><div class=\"line\">{} {} <span class=\"quiet\">{} \
         <span class=\"number\">#{}</span></span> <span class=\"age\">{}</span></div>",
        names.collect::<Vec<_>>().join("\n"),
        Text(request.route_or_path()),
        outcomes.collect::<Vec<_>>().join(" "),
        what(request),
        end(request.completion.as_ref()),
        Time(clock.time_of(request.arrived)),
        request.number,
        Span(axis.length),
    );
    if !request.id().is_empty() {
        let _ = write!(
            html,
            "<div class=\"line quiet\">x-request-id <code>{}</code></div>",
            Text(request.id())
        );
    }
    html.push_str("<ul class=\"lanes\">");
    lane_of_request(&mut html, clock, &axis, request);
    for callback in callbacks {
        lane(&mut html, clock, &axis, callback);
    }
    html.push_str("</ul>");
    if request.more_callbacks > 0 {
        let _ = write!(
            html,
            "<p class=\"quiet\">and {} more callbacks</p>",
            request.more_callbacks
        );
    }
    html.push_str("</li>");
    (key, html)
}

fn what(request: &Request) -> String {
    if !request.is_request {
        return "<b>a unit of work</b>".to_owned();
    }
    let mut html = format!(
        "<span class=\"method\">{}</span> <b class=\"path\">{}</b>",
        Text(request.method()),
        Text(request.path())
    );
    if !request.route().is_empty() && request.route() != request.path() {
        let _ = write!(
            html,
            " <span class=\"quiet route\">{}</span>",
            Text(request.route())
        );
    }
    html
}

fn delivery(delivery: Delivery) -> (&'static str, &'static str) {
    match delivery {
        Delivery::Sent => ("sent", "ok"),
        Delivery::Aborted => ("aborted", "aborted"),
        Delivery::BodyError => ("body error", "error"),
        Delivery::Pending => ("pending", "pending"),
        Delivery::NoResponse => ("no response", "error"),
    }
}

fn end(completion: Option<&Completion>) -> String {
    let Some(completion) = completion else {
        return "<span class=\"badge open\">no end yet</span>".to_owned();
    };
    let (word, class) = delivery(completion.delivery());
    let mut html = String::new();
    if let Some(status) = completion.status() {
        let class = if completion.is_success() {
            "ok"
        } else {
            "error"
        };
        let _ = write!(
            html,
            "<span class=\"badge {class}\">{}</span> ",
            status.as_u16()
        );
    }
    let _ = write!(html, "<span class=\"badge {class}\">{word}</span>");
    html
}

fn lane_of_request(html: &mut String, clock: &Clock, axis: &Axis, request: &Request) {
    let at = |after: Duration| request.arrived + after;
    let over = request.completion.as_ref().map(Completion::elapsed);
    let handled = request.answered.or(over);
    let mut bars = String::new();
    axis.bar(
        &mut bars,
        "handler",
        request.arrived,
        handled.map_or(clock.now, at),
    );
    let mut words = match handled {
        Some(handled) => format!("handler {}", Span(handled)),
        None => "handler at work".to_owned(),
    };
    if let Some(answered) = request.answered {
        let released = released(clock, request).unwrap_or(at(answered));
        if released > at(answered) {
            axis.bar(&mut bars, "held", at(answered), released);
            let held = released.saturating_duration_since(at(answered));
            let _ = write!(words, ", held back {}", Span(held));
        }
        match (over.map(at), request.completion) {
            (Some(over), Some(completion)) => {
                let (word, _) = delivery(completion.delivery());
                let is_sent = completion.is_delivered();
                let class = if is_sent { "sending" } else { "sending broken" };
                axis.bar(&mut bars, class, released.min(over), over);
                let sending = over.saturating_duration_since(released);
                let _ = write!(words, ", sending {}", Span(sending));
                if !is_sent {
                    let _ = write!(words, ", {word}");
                }
            }
            _ if request.is_unfinished() => {
                axis.bar(&mut bars, "sending", released, clock.now);
                words.push_str(", sending");
            }
            _ => {}
        }
    }
    push_lane(html, "<b>request</b>", &bars, &words, "");
}

/// When the last callback ended that the response waited for.
fn released(clock: &Clock, request: &Request) -> Option<Instant> {
    let callbacks = request.callbacks.iter();
    let before = callbacks.filter(|callback| callback.phase == Phase::Before);
    before
        .map(|callback| callback.ended.map_or(clock.now, |(at, _)| at))
        .max()
}

fn outcome(callback: &Callback) -> &'static str {
    match (callback.ended, callback.started) {
        (Some((_, end)), _) => end.label(),
        (None, Some(_)) => "running",
        (None, None) => "pending",
    }
}

fn lane(html: &mut String, clock: &Clock, axis: &Axis, callback: &Callback) {
    let class = outcome(callback);
    let mut bars = String::new();
    let ended = callback.ended.map_or(clock.now, |(at, _)| at);
    let started = callback.started.unwrap_or(ended);
    axis.bar(&mut bars, "waiting", callback.registered, started);
    let mut words = class.replace('_', " ");
    match callback.started {
        Some(started) => {
            axis.bar(&mut bars, class, started, ended);
            let _ = write!(words, " {}", Span(ended.saturating_duration_since(started)));
        }
        None if callback.ended.is_some() => axis.bar(&mut bars, class, ended, ended),
        None => {}
    }
    let label = match callback.name.as_deref() {
        Some(_) => name(callback.name.as_deref()),
        None => format!("<b class=\"name unnamed\">{}</b>", Text(short(callback))),
    };
    let title = format!("{} ({})", callback.place, callback.phase);
    push_lane(
        html,
        &label,
        &bars,
        &words,
        &format!(" title=\"{}\"", Text(title)),
    );
}

/// Of a place, the file without its folders, and the line.
fn short(callback: &Callback) -> String {
    let file = callback.place.file();
    let file = file.rsplit(['/', '\\']).next().unwrap_or(file);
    format!("{file}:{}", callback.place.line())
}

fn push_lane(html: &mut String, label: &str, bars: &str, words: &str, attributes: &str) {
    let class = words.split([' ', ',']).next().unwrap_or("");
    let _ = write!(
        html,
        "<li class=\"lane\"{attributes}><span class=\"label\">{label}</span>\
         <svg class=\"picture\" aria-hidden=\"true\">{bars}</svg>\
         <span class=\"words {class}\">{words}</span></li>"
    );
}

// ── Failures ────────────────────────────────────────────────────────────────────────────────────

pub(super) fn failures(snapshot: &Snapshot) -> Vec<Part> {
    let items = snapshot.failures.iter();
    items.map(|item| failure(&snapshot.clock, item)).collect()
}

fn failure(clock: &Clock, failure: &Failure) -> Part {
    let key = format!("failure-{}", failure.key);
    let word = match failure.end {
        End::TimedOut => "timed out",
        end => end.label(),
    };
    let mut html = format!(
        "<li id=\"{key}\" class=\"item failing\" data-name=\"{}\" data-route=\"{}\" \
         data-outcome=\"{label}\"><div class=\"line\"><span class=\"badge {label}\">{word}</span> \
         {} <span class=\"age\">{}</span></div><pre>{}</pre><div class=\"line quiet\">\
         <code>{}</code> {}",
        filtered(failure.name.as_deref(), failure.place),
        Text(&failure.route),
        name(failure.name.as_deref()),
        Time(clock.time_of(failure.at)),
        Text(&failure.text),
        Text(failure.place),
        link(failure.request, &failure.label),
        label = failure.end.label(),
    );
    if let Some((waited, took)) = failure.times {
        let _ = write!(html, " waited {}, ran {}", Span(waited), Span(took));
    }
    let _ = write!(html, ", {} the response</div></li>", failure.phase);
    (key, html)
}

// ── By name ─────────────────────────────────────────────────────────────────────────────────────

pub(super) fn names(snapshot: &Snapshot) -> Vec<Part> {
    snapshot.names.iter().map(by_name).collect()
}

fn by_name(name: &Name) -> Part {
    let key = format!("name-{}", name.key);
    let place = name.place.filter(|_| name.is_named);
    let outcome = if name.failed > 0 { "ok error" } else { "ok" };
    let mut html = format!(
        "<tr id=\"{key}\" data-name=\"{}\" data-route=\"\" data-outcome=\"{outcome}\">\
         <th scope=\"row\"><b class=\"name\">{}</b>",
        Text(&name.label),
        Text(&name.label),
    );
    if let Some(place) = place {
        let _ = write!(html, "<br><code class=\"quiet\">{}</code>", Text(place));
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
    for (label, [half, most, nearly_all]) in [("waited", name.waited), ("took", name.took)] {
        let _ = write!(
            html,
            "<td class=\"times\" data-label=\"{label}\"><span>{}</span> <span>{}</span> \
             <span>{}</span></td>",
            Span(half),
            Span(most),
            Span(nearly_all)
        );
    }
    let _ = write!(
        html,
        "<td class=\"recent\" data-label=\"last 5 minutes\">{}</td></tr>",
        sparkline(&name.bars)
    );
    (key, html)
}

fn sparkline(bars: &[[u32; 2]]) -> String {
    let highest = bars.iter().map(|[ok, failed]| ok + failed).max();
    let highest = f64::from(highest.unwrap_or(0).max(1));
    let (mut ran, mut failed) = (0_u64, 0_u64);
    let mut html = String::new();
    for (place, [good, bad]) in bars.iter().enumerate() {
        ran += u64::from(good + bad);
        failed += u64::from(*bad);
        let mut top = 20.0;
        for (class, count) in [("error", *bad), ("ok", *good)] {
            if count > 0 {
                let height = (f64::from(count) / highest * 20.0).max(1.0);
                top -= height;
                let x = place * 2;
                let _ = write!(
                    html,
                    "<rect class=\"{class}\" x=\"{x}\" y=\"{:.1}\" width=\"1.6\" height=\"{height:.1}\"/>",
                    top.max(0.0)
                );
            }
        }
    }
    format!(
        "<svg class=\"spark\" viewBox=\"0 0 120 20\" preserveAspectRatio=\"none\" role=\"img\" \
         aria-label=\"in the last 5 minutes {ran}, of which {failed} failed\">{html}</svg>"
    )
}

//! A request as a waterfall: its steps and callbacks as bars on one time axis.

use std::{fmt::Write, time::Duration};

use axum_defer::{Completion, Delivery, Phase};
use tokio::time::Instant;

use crate::{
    event::RequestText,
    html::{Span, Text, Time},
    request::{CallbackRecord, RequestRecord},
    snapshot::Clock,
    views::{Item, delivery_label, filter_name, name, percent},
};

pub(crate) fn request(clock: &Clock, request: &RequestRecord) -> Item {
    let key = format!("request-{}", request.scope);
    let axis = Axis::new(clock, request);
    let callbacks = &request.callbacks;
    let names: Vec<_> = callbacks
        .iter()
        .map(|callback| filter_name(callback.name.as_deref(), callback.location))
        .collect();
    let states: Vec<_> = callbacks.iter().map(CallbackRecord::state).collect();
    let failing = if callbacks.iter().any(CallbackRecord::is_failure) {
        " failing"
    } else {
        ""
    };
    let mut html = format!(
        "<li id=\"{key}\" class=\"item request{failing}\" tabindex=\"-1\" data-name=\"{}\" \
         data-route=\"{}\" data-outcome=\"{}\"><div class=\"line\">{} {} <span class=\"quiet\">{} \
         <span class=\"number\">#{}</span></span> <span class=\"age\">{}</span></div>",
        names.join("\n"),
        Text(request.text.route_or_path()),
        states.join(" "),
        title(&request.text),
        completion_badges(request.completion.as_ref()),
        Time(clock.time_of(request.started_at)),
        request.scope,
        Span(axis.length),
    );
    if !request.text.id.is_empty() {
        let _ = write!(
            html,
            "<div class=\"line quiet\">x-request-id <code>{}</code></div>",
            Text(&request.text.id)
        );
    }
    html.push_str("<ul class=\"lanes\">");
    push_request_lane(&mut html, &axis, request);
    for callback in callbacks {
        push_callback_lane(&mut html, &axis, callback);
    }
    html.push_str("</ul>");
    if request.callbacks_not_recorded > 0 {
        let more = request.callbacks_not_recorded;
        let _ = write!(html, "<p class=\"quiet\">and {more} more callbacks</p>");
    }
    html.push_str("</li>");
    (key, html)
}

fn title(request: &RequestText<'_>) -> String {
    if !request.is_request() {
        return format!("<b>{}</b>", request.label());
    }
    let mut html = format!(
        "<span class=\"method\">{}</span> <b class=\"path\">{}</b>",
        Text(&request.method),
        Text(&request.path)
    );
    if !request.route.is_empty() && request.route != request.path {
        let route = Text(&request.route);
        let _ = write!(html, " <span class=\"quiet route\">{route}</span>");
    }
    html
}

fn completion_badges(completion: Option<&Completion>) -> String {
    let Some(completion) = completion else {
        return "<span class=\"badge open\">in progress</span>".to_owned();
    };
    let mut html = String::new();
    if let Some(status) = completion.status() {
        let class = if completion.is_success() {
            "ok"
        } else {
            "error"
        };
        let status = status.as_u16();
        let _ = write!(html, "<span class=\"badge {class}\">{status}</span> ");
    }
    let class = match completion.delivery() {
        Delivery::Complete => "ok",
        Delivery::Aborted => "aborted",
        Delivery::Pending => "pending",
        _ => "error",
    };
    let words = delivery_words(completion.delivery());
    let _ = write!(html, "<span class=\"badge {class}\">{words}</span>");
    html
}

fn delivery_words(delivery: Delivery) -> String {
    delivery_label(delivery).replace('_', " ")
}

/// The time axis of a request, from its start to the end of its last callback.
struct Axis {
    start: Instant,
    now: Instant,
    length: Duration,
}

impl Axis {
    fn new(clock: &Clock, request: &RequestRecord) -> Self {
        let mut length = request.time_to_head.unwrap_or_default();
        if let Some(completion) = &request.completion {
            length = length.max(completion.elapsed());
        }
        for callback in &request.callbacks {
            let end = callback.ended_at().unwrap_or(clock.now);
            length = length.max(end.saturating_duration_since(request.started_at));
        }
        Self {
            start: request.started_at,
            now: clock.now,
            length,
        }
    }

    fn percent(&self, at: Instant) -> f64 {
        percent(at.saturating_duration_since(self.start), self.length)
    }

    /// Draws a bar that is wide enough to be visible.
    fn push_bar(&self, svg: &mut String, class: &str, from: Instant, to: Instant) {
        let width = (self.percent(to) - self.percent(from)).max(0.8);
        let x = self.percent(from).min(100.0 - width);
        let (y, height) = if class == "queued" {
            (42, 16)
        } else {
            (12, 76)
        };
        let _ = write!(
            svg,
            "<rect class=\"{class}\" x=\"{x:.2}%\" y=\"{y}%\" width=\"{width:.2}%\" \
             height=\"{height}%\" rx=\"2\"/>"
        );
    }
}

/// Draws the handler, the `before_response` callbacks, and sending.
fn push_request_lane(html: &mut String, axis: &Axis, request: &RequestRecord) {
    let elapsed = request.completion.as_ref().map(Completion::elapsed);
    let Some(handler) = request.time_to_head.or(elapsed) else {
        let mut bars = String::new();
        axis.push_bar(&mut bars, "handler", axis.start, axis.now);
        push_lane(html, "<b>request</b>", &bars, "handler running", "");
        return;
    };
    let mut bars = String::new();
    let mut words = format!("handler {}", Span(handler));
    let head = axis.start + handler;
    axis.push_bar(&mut bars, "handler", axis.start, head);
    if request.time_to_head.is_some() {
        let released = released_at(axis, request).map_or(head, |released| released.max(head));
        if released > head {
            axis.push_bar(&mut bars, "before", head, released);
            let _ = write!(words, ", before_response {}", Span(released - head));
        }
        push_sending(&mut bars, &mut words, axis, request, released);
    }
    push_lane(html, "<b>request</b>", &bars, &words, "");
}

fn push_sending(
    bars: &mut String,
    words: &mut String,
    axis: &Axis,
    request: &RequestRecord,
    released: Instant,
) {
    let Some(completion) = &request.completion else {
        if request.is_unfinished() {
            axis.push_bar(bars, "sending", released, axis.now);
            words.push_str(", sending");
        }
        return;
    };
    let end = axis.start + completion.elapsed();
    let class = if completion.is_complete() {
        "sending"
    } else {
        "sending broken"
    };
    axis.push_bar(bars, class, released.min(end), end);
    let sending = end.saturating_duration_since(released);
    let _ = write!(words, ", sending {}", Span(sending));
    if !completion.is_complete() {
        let _ = write!(words, ", {}", delivery_words(completion.delivery()));
    }
}

/// Returns the end of the last `before_response` callback.
fn released_at(axis: &Axis, request: &RequestRecord) -> Option<Instant> {
    let callbacks = request.callbacks.iter();
    let before = callbacks.filter(|callback| callback.phase == Phase::Before);
    before
        .map(|callback| callback.ended_at().unwrap_or(axis.now))
        .max()
}

fn push_callback_lane(html: &mut String, axis: &Axis, callback: &CallbackRecord) {
    let state = callback.state();
    let ended = callback.ended_at().unwrap_or(axis.now);
    let started = callback.started_at.unwrap_or(ended);
    let mut bars = String::new();
    let mut words = state.replace('_', " ");
    axis.push_bar(&mut bars, "queued", callback.registered_at, started);
    if callback.started_at.is_some() {
        axis.push_bar(&mut bars, state, started, ended);
        let duration = ended.saturating_duration_since(started);
        let _ = write!(words, " {}", Span(duration));
    } else if callback.ended.is_some() {
        axis.push_bar(&mut bars, state, ended, ended);
    }
    let label = name(callback.name.as_deref(), &short_location(callback));
    let title = format!("{} ({})", callback.location, callback.phase);
    let title = format!(" title=\"{}\"", Text(title));
    push_lane(html, &label, &bars, &words, &title);
}

/// Returns the file name, without its folders, and the line.
fn short_location(callback: &CallbackRecord) -> String {
    let file = callback.location.file();
    let file = file.rsplit(['/', '\\']).next().unwrap_or(file);
    format!("{file}:{}", callback.location.line())
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

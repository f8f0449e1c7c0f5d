//! The picture of a request: a bar for each of its steps and callbacks, on one axis of time.

use std::{fmt::Write, time::Duration};

use tokio::time::Instant;

use super::element::{name, share};
use crate::{
    completion::{Completion, Delivery},
    live::{
        html::{Span, Text},
        request::{Callback, Request},
        snapshot::Clock,
    },
    observe::phase::Phase,
};

/// Where the moments of a request are in its picture.
pub(super) struct Axis {
    from: Instant,
    pub(super) length: Duration,
}

impl Axis {
    pub(super) fn of(clock: &Clock, request: &Request) -> Self {
        let mut end = request.answered.unwrap_or_default();
        if let Some(completion) = &request.completion {
            end = end.max(completion.elapsed());
        }
        for callback in request.callbacks() {
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

pub(super) fn lane_of_request(html: &mut String, clock: &Clock, axis: &Axis, request: &Request) {
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
                let is_sent = completion.is_complete();
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
    let callbacks = request.callbacks().iter();
    let before = callbacks.filter(|callback| callback.phase == Phase::Before);
    before
        .map(|callback| callback.ended.map_or(clock.now, |(at, _)| at))
        .max()
}

pub(super) fn outcome(callback: &Callback) -> &'static str {
    match (callback.ended, callback.started) {
        (Some((_, end)), _) => end.label(),
        (None, Some(_)) => "running",
        (None, None) => "pending",
    }
}

pub(super) fn lane(html: &mut String, clock: &Clock, axis: &Axis, callback: &Callback) {
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

pub(super) fn delivery(delivery: Delivery) -> (&'static str, &'static str) {
    match delivery {
        Delivery::Complete => ("sent", "ok"),
        Delivery::Aborted => ("aborted", "aborted"),
        Delivery::BodyError => ("body error", "error"),
        Delivery::Pending => ("pending", "pending"),
        Delivery::NoResponse => ("no response", "error"),
    }
}

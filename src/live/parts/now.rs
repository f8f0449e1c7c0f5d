//! What runs and what waits, and for how long.

use std::time::Duration;

use super::element::{Part, filtered, link, name, share};
use crate::live::{
    html::{Span, Text},
    snapshot::{Clock, Snapshot, Unfinished},
};

pub(in crate::live) fn now(snapshot: &Snapshot) -> Vec<Part> {
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

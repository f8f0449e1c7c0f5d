//! Each request: what came, how it ended, and its picture.

use std::fmt::Write;

use super::{
    element::{Part, filtered},
    waterfall::{Axis, delivery, lane, lane_of_request, outcome},
};
use crate::{
    completion::Completion,
    live::{
        html::{Span, Text, Time},
        request::Request,
        snapshot::{Clock, Snapshot},
    },
};

pub(in crate::live) fn requests(snapshot: &Snapshot) -> Vec<Part> {
    let items = snapshot.requests.iter();
    items.map(|item| request(&snapshot.clock, item)).collect()
}

fn request(clock: &Clock, request: &Request) -> Part {
    let key = format!("request-{}", request.number);
    let axis = Axis::of(clock, request);
    let callbacks = request.callbacks();
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

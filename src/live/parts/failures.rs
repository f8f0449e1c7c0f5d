//! What failed, and why.

use std::fmt::Write;

use super::element::{Part, filtered, link, name};
use crate::live::{
    end::End,
    html::{Span, Text, Time},
    record::Failure,
    snapshot::{Clock, Snapshot},
};

pub(in crate::live) fn failures(snapshot: &Snapshot) -> Vec<Part> {
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

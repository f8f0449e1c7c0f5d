//! What is counted by name: numbers, percentiles, and the last minutes as a sparkline.

use std::fmt::Write;

use super::element::Part;
use crate::live::{
    html::{Span, Text},
    snapshot::{Name, Snapshot},
};

pub(in crate::live) fn names(snapshot: &Snapshot) -> Vec<Part> {
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

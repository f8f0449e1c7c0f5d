//! What the elements of several views have in common.

use std::{fmt::Display, time::Duration};

use crate::live::html::Text;

/// An element, and the key under which a newer one takes its place.
pub(in crate::live) type Part = (String, String);

pub(super) fn name(name: Option<&str>) -> String {
    match name {
        Some(name) => format!("<b class=\"name\">{}</b>", Text(name)),
        None => "<b class=\"name unnamed\">unnamed</b>".to_owned(),
    }
}

/// By what a callback is found.
pub(super) fn filtered(name: Option<&str>, place: impl Display) -> String {
    match name {
        Some(name) => Text(name).to_string(),
        None => Text(place).to_string(),
    }
}

pub(super) fn link(request: u64, label: &str) -> String {
    format!(
        "<a href=\"#request-{request}\">{} <span class=\"number\">#{request}</span></a>",
        Text(label)
    )
}

/// In per cent.
pub(super) fn share(part: Duration, whole: Duration) -> f64 {
    if whole.is_zero() {
        return 0.0;
    }
    (part.as_secs_f64() / whole.as_secs_f64() * 100.0).min(100.0)
}

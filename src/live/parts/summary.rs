//! Above the views: how many there are of what, and what is not shown.

use std::fmt::Write;

use crate::live::snapshot::Snapshot;

pub(in crate::live) fn totals(snapshot: &Snapshot) -> String {
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
pub(in crate::live) fn bounds(snapshot: &Snapshot) -> String {
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

//! Feature `metrics`: counters, histograms and gauges through the `metrics` facade.

use std::time::Duration;

use metrics::{counter, gauge, histogram};

use super::Finished;

pub(crate) fn count(outcome: &'static str) {
    counter!("deferred_callbacks_total", "outcome" => outcome).increment(1);
}

pub(crate) fn waited(waited: Duration) {
    histogram!("deferred_callback_waiting_seconds").record(waited);
}

pub(crate) fn finished(finished: &Finished<'_>) {
    count(finished.outcome.label());
    histogram!("deferred_callback_running_seconds").record(finished.took);
}

pub(crate) fn pending(change: f64) {
    gauge!("deferred_callbacks_pending").increment(change);
}

pub(crate) fn running(change: f64) {
    gauge!("deferred_callbacks_running").increment(change);
}

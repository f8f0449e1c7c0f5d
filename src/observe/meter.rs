//! Feature `metrics`: counters, histograms and gauges through the `metrics` facade.

use std::time::Duration;

use metrics::{
    Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};

use super::outcome::Finished;

const TOTAL: &str = "deferred_callbacks_total";
const PENDING: &str = "deferred_callbacks_pending";
const RUNNING: &str = "deferred_callbacks_running";
const WAITING_SECONDS: &str = "deferred_callback_waiting_seconds";
const RUNNING_SECONDS: &str = "deferred_callback_running_seconds";

const OUTCOMES: [&str; 8] = [
    "ok",
    "error",
    "panicked",
    "timed_out",
    "skipped",
    "cancelled",
    "replaced",
    "lost",
];

/// Tells the recorder what there will be, and counts nothing of each outcome: an alert on the
/// increase of a counter that only comes into being with the first loss would miss that one.
pub(crate) fn describe() {
    describe_counter!(
        TOTAL,
        Unit::Count,
        "Deferred callbacks that are over, by outcome"
    );
    describe_gauge!(
        PENDING,
        Unit::Count,
        "Deferred callbacks that are registered and have not started"
    );
    describe_gauge!(RUNNING, Unit::Count, "Deferred callbacks that are running");
    describe_histogram!(
        WAITING_SECONDS,
        Unit::Seconds,
        "From the registration of a deferred callback to its start"
    );
    describe_histogram!(
        RUNNING_SECONDS,
        Unit::Seconds,
        "From the start of a deferred callback to its end"
    );
    for outcome in OUTCOMES {
        counter!(TOTAL, "outcome" => outcome).increment(0);
    }
    pending(0.0);
    running(0.0);
}

pub(crate) fn count(outcome: &'static str) {
    counter!(TOTAL, "outcome" => outcome).increment(1);
}

pub(crate) fn waited(waited: Duration) {
    histogram!(WAITING_SECONDS).record(waited);
}

pub(crate) fn finished(finished: &Finished<'_>) {
    count(finished.outcome.label());
    histogram!(RUNNING_SECONDS).record(finished.took);
}

pub(crate) fn pending(change: f64) {
    gauge!(PENDING).increment(change);
}

pub(crate) fn running(change: f64) {
    gauge!(RUNNING).increment(change);
}

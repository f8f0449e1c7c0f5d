//! Feature `metrics`: counters, histograms and gauges through the `metrics` facade.

use std::time::Duration;

use metrics::{
    Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};

use super::{callback_info::CallbackInfo, outcome::Finished, phase::Phase};

const TOTAL: &str = "deferred_callbacks_total";
const PENDING: &str = "deferred_callbacks_pending";
const RUNNING: &str = "deferred_callbacks_running";
const WAITING_SECONDS: &str = "deferred_callback_waiting_seconds";
const RUNNING_SECONDS: &str = "deferred_callback_running_seconds";

const OUTCOMES: [&str; 9] = [
    "ok",
    "error",
    "panicked",
    "timed_out",
    "skipped",
    "cancelled",
    "replaced",
    "duplicate",
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
        "From the end of the response, or the registration if that was later, to the start of a \
         deferred callback"
    );
    describe_histogram!(
        RUNNING_SECONDS,
        Unit::Seconds,
        "From the start of a deferred callback to its end"
    );
    for phase in [Phase::Before, Phase::After] {
        for outcome in OUTCOMES {
            counter!(TOTAL, "outcome" => outcome, "phase" => phase.label()).increment(0);
        }
    }
    pending(0.0);
    running(0.0);
}

/// Counts what happens to callbacks.
#[derive(Clone, Copy)]
pub(super) struct Meter {
    /// With a label for the name of the callback.
    pub(super) by_name: bool,
}

impl Meter {
    pub(super) fn count(self, outcome: &'static str, callback: &CallbackInfo<'_>) {
        let phase = callback.phase.label();
        match self.name(callback) {
            None => counter!(TOTAL, "outcome" => outcome, "phase" => phase),
            Some(name) => {
                counter!(TOTAL, "outcome" => outcome, "phase" => phase, "name" => name)
            }
        }
        .increment(1);
    }

    pub(super) fn waited(self, waited: Duration, callback: &CallbackInfo<'_>) {
        self.record(WAITING_SECONDS, waited, callback);
    }

    pub(super) fn finished(self, finished: &Finished<'_>, callback: &CallbackInfo<'_>) {
        self.count(finished.outcome.label(), callback);
        self.record(RUNNING_SECONDS, finished.took, callback);
    }

    fn record(self, histogram: &'static str, time: Duration, callback: &CallbackInfo<'_>) {
        let phase = callback.phase.label();
        match self.name(callback) {
            None => histogram!(histogram, "phase" => phase),
            Some(name) => histogram!(histogram, "phase" => phase, "name" => name),
        }
        .record(time);
    }

    fn name(self, callback: &CallbackInfo<'_>) -> Option<String> {
        let name = callback.name.unwrap_or("unnamed");
        self.by_name.then(|| name.to_owned())
    }
}

pub(crate) fn pending(change: f64) {
    gauge!(PENDING).increment(change);
}

pub(crate) fn running(change: f64) {
    gauge!(RUNNING).increment(change);
}

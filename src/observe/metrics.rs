//! Feature `metrics`: counters, histograms and gauges through the `metrics` facade.

use std::time::Duration;

use ::metrics::{
    Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};

use super::{
    callback_info::{CallbackInfo, Phase},
    outcome::Finished,
};

const TOTAL: &str = "deferred_callbacks_total";
const PENDING: &str = "deferred_callbacks_pending";
const RUNNING: &str = "deferred_callbacks_running";
const QUEUE_TIME: &str = "deferred_callback_queue_time_seconds";
const RUN_TIME: &str = "deferred_callback_run_time_seconds";

const OUTCOMES: [&str; 9] = [
    "ok",
    "error",
    "panicked",
    "timed_out",
    "skipped",
    "cancelled",
    "replaced",
    "deduplicated",
    "lost",
];

/// Describes the metrics and creates each counter, because an alert on the increase of a counter would
/// miss the first loss if that created the counter.
pub(crate) fn describe() {
    describe_counter!(
        TOTAL,
        Unit::Count,
        "Deferred callbacks that have ended, by outcome"
    );
    describe_gauge!(
        PENDING,
        Unit::Count,
        "Deferred callbacks that are registered and have not started"
    );
    describe_gauge!(RUNNING, Unit::Count, "Deferred callbacks that are running");
    describe_histogram!(
        QUEUE_TIME,
        Unit::Seconds,
        "From the end of the response, or the registration if that was later, to the start of a \
         deferred callback"
    );
    describe_histogram!(
        RUN_TIME,
        Unit::Seconds,
        "From the start of a deferred callback to its end"
    );
    for phase in [Phase::Before, Phase::After] {
        for outcome in OUTCOMES {
            counter!(TOTAL, "outcome" => outcome, "phase" => phase.label()).increment(0);
        }
    }
    pending(0.0);
    gauge!(RUNNING).increment(0.0);
}

/// A recorder of the events of one layer.
#[derive(Clone, Copy)]
pub(super) struct Metrics {
    /// Adds a label for the name of the callback.
    pub(super) by_name: bool,
}

impl Metrics {
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

    pub(super) fn started(self, queue_time: Duration, callback: &CallbackInfo<'_>) {
        self.record(QUEUE_TIME, queue_time, callback);
    }

    pub(super) fn finished(self, finished: &Finished<'_>, callback: &CallbackInfo<'_>) {
        self.count(finished.outcome.label(), callback);
        self.record(RUN_TIME, finished.run_time, callback);
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

/// Counts a callback that was pending as running.
pub(crate) fn started() {
    pending(-1.0);
    gauge!(RUNNING).increment(1.0);
}

/// Counts the end of a callback that was running or pending.
pub(crate) fn ended(was_running: bool) {
    let gauge = if was_running { RUNNING } else { PENDING };
    gauge!(gauge).increment(-1.0);
}

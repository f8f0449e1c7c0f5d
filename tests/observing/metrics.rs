//! Feature `metrics`: what ran, failed, was skipped and was lost, apart; and gauges that return.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![cfg(feature = "metrics")]

use std::{
    collections::HashMap,
    convert::Infallible,
    future::pending,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum_defer::{DeferLayer, DeferredCallbackCollection, defer, defer_blocking};
use metrics_util::{
    MetricKind,
    debugging::{DebugValue, DebuggingRecorder, Snapshotter},
};

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

const SECOND: Duration = Duration::from_secs(1);

/// What a recorder has seen since the last look at it.
struct Recorded {
    counters: HashMap<String, u64>,
    gauges: HashMap<String, f64>,
    histograms: HashMap<String, Vec<f64>>,
    described: Vec<String>,
}

impl Recorded {
    fn of(snapshotter: &Snapshotter) -> Self {
        let mut recorded = Self {
            counters: HashMap::new(),
            gauges: HashMap::new(),
            histograms: HashMap::new(),
            described: Vec::new(),
        };
        for (key, _, description, value) in snapshotter.snapshot().into_vec() {
            let (kind, key) = key.into_parts();
            let name = key.name().to_owned();
            if description.is_some() {
                recorded.described.push(name.clone());
            }
            match value {
                DebugValue::Counter(count) => {
                    assert_eq!(
                        (kind, name.as_str()),
                        (MetricKind::Counter, "deferred_callbacks_total")
                    );
                    let mut labels = key.labels();
                    let outcome = labels.next().unwrap();
                    let phase = labels.next().unwrap();
                    assert_eq!((outcome.key(), phase.key()), ("outcome", "phase"));
                    assert_eq!(labels.next(), None);
                    let outcome = match phase.value() {
                        "after" => outcome.value().to_owned(),
                        phase => format!("{phase} {}", outcome.value()),
                    };
                    recorded.counters.insert(outcome, count);
                }
                DebugValue::Gauge(value) => {
                    recorded.gauges.insert(name, value.into_inner());
                }
                DebugValue::Histogram(values) => {
                    let values = values.into_iter().map(|value| value.into_inner());
                    recorded.histograms.insert(name, values.collect());
                }
            }
        }
        recorded
    }

    /// The outcomes that were counted, and how often.
    fn counted(&self) -> Vec<(&str, u64)> {
        assert_eq!(self.counters.len(), 2 * OUTCOMES.len(), "of both phases");
        let counts = OUTCOMES
            .iter()
            .map(|outcome| (*outcome, self.counters[*outcome]));
        counts.filter(|(_, count)| *count > 0).collect()
    }

    fn pending_and_running(&self) -> (f64, f64) {
        (
            self.gauges["deferred_callbacks_pending"],
            self.gauges["deferred_callbacks_running"],
        )
    }
}

/// Runs a future on this thread, under a recorder of its own and a clock that stands still.
fn recorded<T>(future: impl AsyncFnOnce(&Snapshotter) -> T) -> (T, Snapshotter) {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let output = metrics::with_local_recorder(&recorder, || {
        tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap()
            .block_on(future(&snapshotter))
    });
    (output, snapshotter)
}

#[test]
fn every_outcome_is_counted_apart_and_the_gauges_return_to_zero() {
    let ((), snapshotter) = recorded(async |_| {
        let layer = DeferLayer::new();
        layer
            .scope(async {
                for _ in 0..3 {
                    defer(async {});
                }
                defer_blocking(|| {});
                defer(async { Err::<(), _>("no luck") });
                defer_blocking(|| Err::<(), _>("no luck"));
                defer(async { panic!("of the callback") });
                defer(async {}).when(|_| panic!("of the predicate"));
                defer(pending::<()>()).timeout(SECOND);
                for _ in 0..5 {
                    defer(async {}).when(|_| false);
                }
                defer(async {}).cancel();
                defer(async {}).name("forgotten");
                let current = DeferredCallbackCollection::current().unwrap();
                assert_eq!(current.forget("forgotten"), 1);
                for _ in 0..4 {
                    defer(async {}).name("one of them");
                }
            })
            .await;
        let mut scope = Box::pin(layer.scope(async { drop(defer(pending::<()>())) }));
        assert!(futures_util::poll!(&mut scope).is_pending());
        drop(scope);
        layer.handle().wait_idle().await;
    });
    let recorded = Recorded::of(&snapshotter);
    assert_eq!(
        recorded.counted(),
        [
            ("ok", 5),
            ("error", 2),
            ("panicked", 2),
            ("timed_out", 1),
            ("skipped", 5),
            ("cancelled", 2),
            ("replaced", 3),
            ("lost", 1),
        ]
    );
    assert_eq!(recorded.pending_and_running(), (0.0, 0.0));
}

#[test]
fn waiting_and_running_are_measured_for_those_that_ran() {
    let ((), snapshotter) = recorded(async |_| {
        DeferLayer::new()
            .scope(async {
                defer(|| tokio::time::sleep(2 * SECOND));
                defer(async {}).when(|_| false);
                defer(async {}).cancel();
                tokio::time::sleep(SECOND).await;
                defer(pending::<()>()).timeout(4 * SECOND);
            })
            .await;
    });
    let recorded = Recorded::of(&snapshotter);
    assert_eq!(
        recorded.histograms["deferred_callback_queue_time_seconds"],
        [0.0, 2.0]
    );
    assert_eq!(
        recorded.histograms["deferred_callback_run_time_seconds"],
        [2.0, 4.0]
    );
}

#[test]
fn the_gauges_show_what_is_registered_and_what_runs_now() {
    recorded(async |snapshotter| {
        let layer = DeferLayer::new();
        let in_callbacks = snapshotter.clone();
        let sums = Arc::new(Mutex::new((0.0, 0.0)));
        // Each look at the recorder takes out what it shows.
        let gauges = move || {
            let (pending, running) = Recorded::of(&in_callbacks).pending_and_running();
            let mut sums = sums.lock().unwrap();
            *sums = (sums.0 + pending, sums.1 + running);
            *sums
        };
        layer
            .scope(async {
                let (first, last) = (gauges.clone(), gauges.clone());
                defer(async move { assert_eq!(first(), (2.0, 1.0)) });
                defer(async {}).when(|_| false);
                defer(async move { assert_eq!(last(), (0.0, 1.0)) });
                assert_eq!(gauges(), (3.0, 0.0));
                defer(async {}).cancel();
                assert_eq!(gauges(), (3.0, 0.0));
            })
            .await;
        assert_eq!(gauges(), (0.0, 0.0));
        let report = layer.handle().drain(SECOND).await;
        assert!(report.is_complete());
    });
}

#[test]
fn each_series_is_described_and_there_before_the_first_event() {
    let ((), snapshotter) = recorded(async |_| drop(DeferLayer::new()));
    let recorded = Recorded::of(&snapshotter);
    // From nothing to one is no increase, and an alert on lost work would miss the first.
    assert!(recorded.counted().is_empty());
    assert_eq!(recorded.pending_and_running(), (0.0, 0.0));
    assert_eq!(recorded.described.len(), 2 * OUTCOMES.len() + 2);
}

#[test]
fn work_that_the_end_of_the_runtime_takes_is_lost_and_not_skipped() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    metrics::with_local_recorder(&recorder, || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let layer = DeferLayer::new();
        runtime.block_on(async {
            tokio::spawn(layer.scope(async {
                defer(pending::<()>());
                defer(async {});
                defer(async {}).when(|_| false);
                Ok::<_, Infallible>(())
            }));
            while layer.handle().running() == 0 {
                tokio::task::yield_now().await;
            }
        });
        drop(runtime);
    });
    let recorded = Recorded::of(&snapshotter);
    assert_eq!(recorded.counted(), [("lost", 3)]);
    assert_eq!(recorded.pending_and_running(), (0.0, 0.0));
}

#[test]
fn names_are_told_apart_by_a_layer_that_asks_for_it() {
    let ((), snapshotter) = recorded(async |_| {
        DeferLayer::new()
            .metrics_by_name()
            .scope(async {
                defer(async {}).name("mail");
                defer(async { Err::<(), _>("no luck") }).name("audit");
                defer(async {});
                defer(async {}).name("never").when(|_| false);
            })
            .await;
    });
    let mut counted = Vec::new();
    let mut measured = Vec::new();
    for (key, _, _, value) in snapshotter.snapshot().into_vec() {
        let (_, key) = key.into_parts();
        let labels = key.labels().filter(|label| label.key() != "phase");
        let labels: Vec<_> = labels.map(|label| label.value().to_owned()).collect();
        match value {
            DebugValue::Counter(count) if count > 0 => counted.push((labels.join(" "), count)),
            DebugValue::Histogram(values) => measured.push((labels.join(" "), values.len())),
            _ => {}
        }
    }
    counted.sort();
    let once = |labels: &str| (labels.to_owned(), 1);
    let expected = ["error audit", "ok mail", "ok unnamed", "skipped never"];
    assert_eq!(counted, expected.map(once));
    measured.sort();
    let expected = ["audit", "audit", "mail", "mail", "unnamed", "unnamed"];
    assert_eq!(measured, expected.map(|name| (name.to_owned(), 1)));
}

#[test]
fn what_a_response_waits_for_is_counted_apart() {
    let ((), snapshotter) = recorded(async |_| {
        DeferLayer::new()
            .scope(async {
                axum_defer::before_response(async {});
                axum_defer::before_response(async { Err("no luck") });
                defer(async {});
            })
            .await;
    });
    let recorded = Recorded::of(&snapshotter);
    assert_eq!(recorded.counters["before ok"], 1);
    assert_eq!(recorded.counters["before error"], 1);
    assert_eq!(recorded.counted(), [("skipped", 1)]);
    assert_eq!(recorded.pending_and_running(), (0.0, 0.0));
}

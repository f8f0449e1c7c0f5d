//! Time-outs: of the layer, of one callback, of blocking work, and without a clock to tell them.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    convert::Infallible,
    future::pending,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
        mpsc,
    },
    time::Duration,
};

use axum_defer::{
    CallbackInfo, DeferLayer, DeferObserver, Finished, Outcome, defer, defer_blocking,
};
use tokio::sync::Notify;

use crate::support::events::observed;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

type Line = (String, String, Duration, Duration);

/// Of each callback that ran: its name, what came of it, how long it waited and took.
#[derive(Clone, Default)]
struct Durations(Arc<Mutex<Vec<Line>>>);

impl Durations {
    fn all(&self) -> Vec<Line> {
        self.0.lock().unwrap().clone()
    }
}

impl DeferObserver for Durations {
    fn finished(&self, callback: &CallbackInfo<'_>, finished: &Finished<'_>) {
        if let Outcome::TimedOut(limit) = finished.outcome {
            assert_eq!(limit, finished.run_time, "ended in time");
            assert!(!finished.is_ok());
        }
        self.0.lock().unwrap().push((
            callback.name().unwrap_or("-").to_owned(),
            finished.outcome.to_string(),
            finished.queue_time,
            finished.run_time,
        ));
    }
}

/// A layer, and how long its callbacks wait and take.
fn timed() -> (DeferLayer, Durations) {
    let durations = Durations::default();
    (DeferLayer::new().observer(durations.clone()), durations)
}

fn line(name: &str, outcome: &str, waited: Duration, took: Duration) -> Line {
    (name.to_owned(), outcome.to_owned(), waited, took)
}

#[tokio::test(start_paused = true)]
async fn timeout_ends_that_callback_alone() {
    let (layer, durations) = timed();
    let layer = layer.timeout(5 * SECOND);
    layer
        .scope(async {
            defer(|| tokio::time::sleep(SECOND)).name("in time");
            defer(pending::<()>()).name("stuck");
            defer(async {}).name("after it");
        })
        .await;
    assert_eq!(
        durations.all(),
        [
            line("in time", "ok", Duration::ZERO, SECOND),
            line("stuck", "timed out after 5s", SECOND, 5 * SECOND),
            line("after it", "ok", 6 * SECOND, Duration::ZERO),
        ]
    );
    let report = layer.handle().drain(SECOND).await;
    assert!(report.is_complete());
}

#[tokio::test(start_paused = true)]
async fn callback_overrides_layer_timeout() {
    let (layer, durations) = timed();
    let layer = layer.timeout(5 * SECOND);
    layer
        .scope(async {
            defer(|| tokio::time::sleep(MINUTE))
                .name("longer")
                .timeout(2 * MINUTE);
            defer(|| tokio::time::sleep(2 * SECOND))
                .name("shorter")
                .timeout(SECOND);
            defer(|| tokio::time::sleep(MINUTE)).name("of the layer");
        })
        .await;
    assert_eq!(
        durations.all(),
        [
            line("longer", "ok", Duration::ZERO, MINUTE),
            line("shorter", "timed out after 1s", MINUTE, SECOND),
            line(
                "of the layer",
                "timed out after 5s",
                MINUTE + SECOND,
                5 * SECOND
            ),
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn without_timeout_callback_runs_long() {
    let (layer, durations) = timed();
    layer
        .scope(async { drop(defer(|| tokio::time::sleep(100 * MINUTE)).name("long")) })
        .await;
    assert_eq!(
        durations.all(),
        [line("long", "ok", Duration::ZERO, 100 * MINUTE)]
    );
}

#[tokio::test(start_paused = true)]
async fn max_timeout_is_no_timeout() {
    let (layer, durations) = timed();
    let layer = layer.timeout(Duration::MAX);
    layer
        .scope(async { drop(defer(|| tokio::time::sleep(MINUTE)).name("long")) })
        .await;
    assert_eq!(
        durations.all(),
        [line("long", "ok", Duration::ZERO, MINUTE)]
    );
}

#[tokio::test(start_paused = true)]
async fn timeout_starts_with_the_run() {
    let (layer, durations) = timed();
    let layer = layer.timeout(5 * SECOND).max_concurrency(1);
    let scopes: Vec<_> = (0..3)
        .map(|_| {
            tokio::spawn(layer.scope(async {
                defer(|| tokio::time::sleep(4 * SECOND)).name("a");
                defer(|| tokio::time::sleep(4 * SECOND)).name("b");
            }))
        })
        .collect();
    for scope in scopes {
        scope.await.unwrap();
    }
    let expected: Vec<_> = (0..6)
        .map(|turn| {
            line(
                ["a", "b"][turn as usize % 2],
                "ok",
                turn * 4 * SECOND,
                4 * SECOND,
            )
        })
        .collect();
    assert_eq!(durations.all(), expected);
}

#[tokio::test(start_paused = true)]
async fn concurrent_callbacks_time_out_alone() {
    let (layer, durations) = timed();
    let layer = layer.timeout(5 * SECOND).concurrent();
    layer
        .scope(async {
            defer(pending::<()>()).name("stuck");
            defer(pending::<()>())
                .name("stuck, shorter")
                .timeout(2 * SECOND);
            defer(|| tokio::time::sleep(4 * SECOND)).name("in time");
        })
        .await;
    assert_eq!(
        durations.all(),
        [
            line(
                "stuck, shorter",
                "timed out after 2s",
                Duration::ZERO,
                2 * SECOND
            ),
            line("in time", "ok", Duration::ZERO, 4 * SECOND),
            line("stuck", "timed out after 5s", Duration::ZERO, 5 * SECOND),
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn timed_out_callback_is_dropped_first() {
    let dropped = Arc::new(AtomicBool::new(false));
    struct SetsOnDrop(Arc<AtomicBool>);
    impl Drop for SetsOnDrop {
        fn drop(&mut self) {
            self.0.store(true, SeqCst);
            panic!("in a destructor, after a time-out");
        }
    }
    let (layer, events) = observed();
    let layer = layer.timeout(SECOND);
    let held = SetsOnDrop(dropped.clone());
    layer
        .scope(async move {
            defer(async move {
                let _held = held;
                pending::<()>().await;
            })
            .name("stuck");
            defer(async move { assert!(dropped.load(SeqCst)) }).name("next");
        })
        .await;
    assert_eq!(
        events.of("stuck").last().unwrap(),
        "finished timed out after 1s"
    );
    assert_eq!(events.of("next").last().unwrap(), "finished ok");
}

#[tokio::test(start_paused = true)]
async fn timed_out_blocking_callback_continues() {
    let (layer, durations) = timed();
    let layer = layer.timeout(5 * SECOND);
    let (go_on, blocked) = mpsc::channel::<()>();
    let begun = Arc::new(Notify::new());
    let (done, is_done) = tokio::sync::oneshot::channel();
    let scope = tokio::spawn(layer.scope({
        let begun = begun.clone();
        async move {
            defer_blocking(move || {
                begun.notify_one();
                blocked.recv().unwrap();
                done.send("done").unwrap();
            })
            .name("blocking");
            defer(async {}).name("after it");
        }
    }));
    begun.notified().await;
    // The clock does not go by itself while a blocking task runs.
    tokio::time::advance(5 * SECOND).await;
    scope.await.unwrap();
    assert_eq!(
        durations.all(),
        [
            line("blocking", "timed out after 5s", Duration::ZERO, 5 * SECOND),
            line("after it", "ok", 5 * SECOND, Duration::ZERO),
        ]
    );
    assert_eq!((layer.handle().pending(), layer.handle().running()), (0, 0));
    go_on.send(()).unwrap();
    assert_eq!(is_done.await.unwrap(), "done");
}

#[test]
fn timed_out_blocking_callback_never_starts() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .max_blocking_threads(1)
        .build()
        .unwrap();
    runtime.block_on(async {
        let (free, occupied) = mpsc::channel::<()>();
        let occupier = tokio::task::spawn_blocking(move || occupied.recv().unwrap());
        let (layer, events) = observed();
        let layer = layer.timeout(SECOND);
        let ran = Arc::new(AtomicBool::new(false));
        let scope = tokio::spawn(layer.scope({
            let ran = ran.clone();
            async move {
                defer_blocking(move || ran.store(true, SeqCst)).name("blocking");
            }
        }));
        while layer.handle().running() == 0 {
            tokio::task::yield_now().await;
        }
        tokio::time::advance(SECOND).await;
        scope.await.unwrap();
        assert_eq!(
            events.of("blocking").last().unwrap(),
            "finished timed out after 1s"
        );
        free.send(()).unwrap();
        occupier.await.unwrap();
        // The pool has one thread and one queue, so what was before this is over.
        tokio::task::spawn_blocking(|| {}).await.unwrap();
        assert!(!ran.load(SeqCst));
    });
}

#[test]
fn timeout_without_timer_fails() {
    for concurrent in [false, true] {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let (layer, events) = observed();
        let layer = if concurrent {
            layer.concurrent()
        } else {
            layer
        };
        runtime.block_on(layer.scope(async {
            defer(async {}).name("before");
            defer(async {}).name("limited").timeout(SECOND);
            defer_blocking(|| {})
                .name("limited-blocking")
                .timeout(SECOND);
            defer(async {}).name("after");
        }));
        for name in ["before", "after"] {
            assert_eq!(events.of(name), ["registered", "started", "finished ok"]);
        }
        for name in ["limited", "limited-blocking"] {
            let last = events.of(name).pop().unwrap();
            let error = "finished error: there is no timer for the timeout: ";
            assert!(last.starts_with(error), "{last}");
            assert!(last.contains("timers are disabled"), "{last}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn timeout_can_change_until_start() {
    let (layer, durations) = timed();
    let output = layer
        .scope(async {
            let kept = Arc::new(Mutex::new(None));
            let late = kept.clone();
            defer(async move {
                let handle: axum_defer::DeferredCallback = late.lock().unwrap().take().unwrap();
                // The first one can't be what ends it; the second one is.
                handle.timeout(MINUTE).timeout(2 * SECOND);
            })
            .name("sets");
            *kept.lock().unwrap() = Some(defer(pending::<()>()).name("stuck").timeout(SECOND));
            Ok::<_, Infallible>("output")
        })
        .await;
    assert_eq!(output, Ok("output"));
    assert_eq!(
        durations.all()[1],
        line("stuck", "timed out after 2s", Duration::ZERO, 2 * SECOND)
    );
}

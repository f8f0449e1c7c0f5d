//! Cancel and forget: before, during and after the run, and all at once.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    convert::Infallible,
    sync::{
        Arc, Barrier, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use axum::{Router, body::Body, http::Request, routing::get};
use axum_defer::{
    Completion, DeferLayer, DeferredCallback, DeferredCallbackCollection, defer, defer_blocking,
};
use http_body_util::BodyExt;
use tower::ServiceExt;

use crate::support::events::observed;

/// Runs a unit of work, and gives its collection back when its callbacks have run.
async fn run(
    layer: &DeferLayer,
    work: impl FnOnce(DeferredCallbackCollection),
) -> DeferredCallbackCollection {
    let output = layer.scope(async {
        let collection = DeferredCallbackCollection::current().unwrap();
        work(collection.clone());
        Ok::<_, Infallible>(collection)
    });
    output.await.unwrap()
}

/// Ends when it is dropped, and says so.
struct Captured(Arc<AtomicUsize>);

impl Drop for Captured {
    fn drop(&mut self) {
        self.0.fetch_add(1, SeqCst);
    }
}

#[tokio::test]
async fn a_callback_cancelled_before_the_run_never_starts_and_lets_go_of_what_it_captured() {
    let (layer, events) = observed();
    let dropped = Arc::new(AtomicUsize::new(0));
    run(&layer, |collection| {
        let captured = Captured(dropped.clone());
        let callback = defer(async move { drop(captured) })
            .name("cancelled")
            .always();
        assert_eq!(collection.len(), 1);
        assert!(callback.cancel());
        assert_eq!(dropped.load(SeqCst), 1);
        assert!(
            !callback.cancel(),
            "a second time there is nothing to cancel"
        );
        assert!(collection.is_empty() && !collection.contains("cancelled"));
        assert_eq!(layer.handle().pending(), 0);
        defer(async {}).name("other");
    })
    .await;
    assert_eq!(events.of("cancelled"), ["registered", "cancelled"]);
    assert_eq!(events.of("other"), ["registered", "started", "finished ok"]);
}

#[tokio::test]
async fn forget_before_the_run_takes_out_that_name_and_no_other() {
    let (layer, events) = observed();
    run(&layer, |collection| {
        defer(async {}).name("kept");
        defer(async {}).name("forgotten");
        defer_blocking(|| {}).name("forgotten-blocking");
        assert_eq!(collection.forget("forgotten"), 1);
        assert_eq!(collection.forget("forgotten"), 0);
        assert_eq!(collection.forget("forgotten-blocking"), 1);
        assert_eq!(collection.forget("never known"), 0);
        assert_eq!(collection.names(), ["kept"]);
        defer(async {}).name("forgotten");
        assert_eq!(collection.names(), ["kept", "forgotten"]);
    })
    .await;
    assert_eq!(events.of("forgotten-blocking"), ["registered", "cancelled"]);
    assert_eq!(
        events.of("forgotten"),
        [
            "registered",
            "cancelled",
            "registered",
            "started",
            "finished ok"
        ]
    );
    assert_eq!(events.of("kept").last().unwrap(), "finished ok");
}

#[tokio::test]
async fn a_running_callback_cancels_and_forgets_later_ones_and_not_itself() {
    let (layer, events) = observed();
    run(&layer, |collection| {
        let handles = Arc::new(Mutex::new(Vec::<DeferredCallback>::new()));
        let in_callback = handles.clone();
        let first = defer(async move {
            let handles = std::mem::take(&mut *in_callback.lock().unwrap());
            assert!(!handles[0].cancel(), "it runs already");
            assert!(handles[1].cancel());
            assert_eq!(collection.forget("first"), 0, "it runs already");
            assert_eq!(collection.forget("third"), 1);
            assert_eq!(collection.names(), ["fourth"]);
        })
        .name("first");
        let second = defer(async {}).name("second");
        defer(async {}).name("third");
        defer(async {}).name("fourth");
        handles.lock().unwrap().extend([first, second]);
    })
    .await;
    assert_eq!(events.of("first").last().unwrap(), "finished ok");
    assert_eq!(events.of("second"), ["registered", "cancelled"]);
    assert_eq!(events.of("third"), ["registered", "cancelled"]);
    assert_eq!(
        events.of("fourth"),
        ["registered", "started", "finished ok"]
    );
}

#[tokio::test]
async fn side_by_side_a_callback_that_has_begun_is_not_cancelled_by_another() {
    let (layer, events) = observed();
    let layer = layer.concurrent();
    let begun = Arc::new(tokio::sync::Barrier::new(2));
    run(&layer, |collection| {
        let both = begun.clone();
        let one = defer(async move {
            both.wait().await;
            both.wait().await;
        })
        .name("one");
        defer(async move {
            begun.wait().await;
            assert!(!one.cancel());
            assert_eq!(collection.forget("one"), 0);
            begun.wait().await;
        })
        .name("other");
    })
    .await;
    assert_eq!(events.of("one").last().unwrap(), "finished ok");
    assert_eq!(events.of("other").last().unwrap(), "finished ok");
}

#[tokio::test]
async fn after_the_run_there_is_nothing_to_cancel_or_to_forget() {
    let (layer, events) = observed();
    let mut handles = Vec::new();
    let collection = run(&layer, |_| {
        handles.push(defer(async {}).name("ran"));
        handles.push(defer(async {}).name("skipped").when(|_| false));
    })
    .await;
    for handle in &handles {
        assert!(!handle.cancel());
    }
    assert_eq!(collection.forget("ran") + collection.forget("skipped"), 0);
    drop(handles);
    assert_eq!(events.of("ran"), ["registered", "started", "finished ok"]);
    assert_eq!(events.of("skipped"), ["registered", "skipped Complete"]);
}

#[tokio::test]
async fn a_handle_that_is_used_too_late_changes_nothing() {
    let (layer, events) = observed();
    let mut late = Vec::new();
    let collection = run(&layer, |_| {
        for name in ["ran", "cancelled", "replaced"] {
            late.push(defer(async {}).name(name));
        }
        assert!(late[1].cancel());
        defer(async {}).name("replaced");
    })
    .await;
    let told = events.all();

    let gate = Arc::new(tokio::sync::Notify::new());
    let opened = gate.clone();
    collection
        .defer(async move { opened.notified().await })
        .name("running");
    let waiting = collection.defer(async {}).name("waiting");
    for handle in late {
        // The name is taken by a callback that must keep it.
        let handle = handle
            .name("waiting")
            .always()
            .when(|_| panic!("of a late rule"));
        let handle = handle.timeout(std::time::Duration::ZERO);
        assert!(!handle.cancel());
    }
    assert!(collection.contains("waiting"));
    drop(waiting);
    gate.notify_one();
    layer.handle().wait_idle().await;
    assert_eq!(
        events.of("waiting"),
        ["registered", "started", "finished ok"]
    );
    assert_eq!(events.all().len(), told.len() + 6);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_callback_deferred_late_has_its_name_and_its_rule_before_it_runs() {
    const ROUNDS: usize = 2_000;
    let ran = Arc::new(AtomicUsize::new(0));
    for concurrent in [false, true] {
        let (layer, events) = observed();
        let layer = if concurrent {
            layer.concurrent()
        } else {
            layer
        };
        for _ in 0..ROUNDS {
            let collection = layer
                .scope(async { Err::<(), _>(DeferredCallbackCollection::current().unwrap()) })
                .await
                .unwrap_err();
            for _ in 0..2 {
                let ran = ran.clone();
                let counts = async move { drop(ran.fetch_add(1, SeqCst).to_string()) };
                collection.defer(counts).always();
            }
            // Of blocking callbacks too, which run beside whoever runs the others.
            let inner = collection.clone();
            let ran = ran.clone();
            let blocking = move || {
                let counts = async move { drop(ran.fetch_add(1, SeqCst).to_string()) };
                inner.defer(counts).name("inner").always();
            };
            collection.defer_blocking(blocking).always();
            layer.handle().wait_idle().await;
        }
        assert!(events.starting_with("skipped").is_empty());
        let inner = events.of("inner");
        let count = |event| inner.iter().filter(|told| *told == event).count();
        assert_eq!(
            (count("registered"), count("finished ok")),
            (ROUNDS, ROUNDS)
        );
    }
    assert_eq!(ran.load(SeqCst), 2 * 3 * ROUNDS);
}

#[tokio::test]
async fn a_late_callback_waits_for_its_handle_and_holds_up_nobody() {
    let (layer, events) = observed();
    let collection = run(&layer, |_| {}).await;
    let kept = collection.defer(async {}).name("kept");
    collection.defer(async {}).name("other");
    while events.of("other").last().unwrap() != "finished ok" {
        tokio::task::yield_now().await;
    }
    assert_eq!(collection.names(), ["kept"]);
    let report = layer.handle().drain(std::time::Duration::ZERO).await;
    assert_eq!(report.unfinished[0].name(), Some("kept"));
    drop(kept);
    layer.handle().wait_idle().await;
    assert_eq!(events.of("kept"), ["registered", "started", "finished ok"]);
    assert!(
        layer
            .handle()
            .drain(std::time::Duration::ZERO)
            .await
            .is_complete()
    );
}

#[tokio::test]
async fn a_handle_outlives_the_request_and_the_layer() {
    let kept = Arc::new(Mutex::new(None));
    let layer = DeferLayer::new();
    let watch = layer.handle();
    let in_handler = kept.clone();
    let app: Router = Router::new()
        .route(
            "/",
            get(|| async move { *in_handler.lock().unwrap() = Some(defer(async {})) }),
        )
        .layer(layer);
    let response = app.oneshot(Request::new(Body::empty())).await.unwrap();
    response.into_body().collect().await.unwrap();
    watch.wait_idle().await;
    let kept: DeferredCallback = kept.lock().unwrap().take().unwrap();
    assert!(!kept.name("late").cancel());
}

#[tokio::test]
async fn cancelling_from_another_task_while_the_response_is_on_its_way() {
    let (layer, events) = observed();
    let app: Router = Router::new()
        .route(
            "/",
            get(|deferred: DeferredCallbackCollection| async move {
                let callback = defer(async {}).name("callback");
                let cancelled = tokio::spawn(async move { callback.cancel() });
                deferred.defer(|_: Completion| async {}).name("other");
                assert!(cancelled.await.unwrap());
                "hello"
            }),
        )
        .layer(layer.clone());
    let response = app.oneshot(Request::new(Body::empty())).await.unwrap();
    response.into_body().collect().await.unwrap();
    layer.handle().wait_idle().await;
    assert_eq!(events.of("callback"), ["registered", "cancelled"]);
    assert_eq!(events.of("other").last().unwrap(), "finished ok");
}

#[tokio::test]
async fn what_a_cancelled_callback_captured_may_use_the_collection_when_it_is_dropped() {
    struct Reenters(DeferredCallbackCollection);
    impl Drop for Reenters {
        fn drop(&mut self) {
            assert_eq!(self.0.forget("second"), 1);
            self.0.defer(async {}).name("third");
            panic!("in a destructor");
        }
    }
    let (layer, events) = observed();
    run(&layer, |collection| {
        let captured = Reenters(collection.clone());
        let first = defer(async move { drop(captured) }).name("first");
        defer(async {}).name("second");
        assert!(first.cancel());
        assert_eq!(collection.names(), ["third"]);
    })
    .await;
    assert_eq!(events.of("first"), ["registered", "cancelled"]);
    assert_eq!(events.of("second"), ["registered", "cancelled"]);
    assert_eq!(events.of("third").last().unwrap(), "finished ok");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_those_who_cancel_at_once_and_the_run_exactly_one_has_the_callback() {
    const ROUNDS: usize = 1_000;
    let (layer, events) = observed();
    let ran = Arc::new(AtomicUsize::new(0));
    let mut cancelled = 0;
    let mut forgotten = 0;
    for _ in 0..ROUNDS {
        let start = Arc::new(Barrier::new(3));
        let ran_before = ran.load(SeqCst);
        let (collection, handle) = {
            let ran = ran.clone();
            layer
                .scope(async {
                    let collection = DeferredCallbackCollection::current().unwrap();
                    Ok::<_, Infallible>((collection, ran))
                })
                .await
                .map(|(collection, ran)| {
                    // Held by the run until the threads are there, so that all three race.
                    let (runner, next) = (start.clone(), ran);
                    collection.defer_blocking(move || {
                        runner.wait();
                    });
                    let handle = collection
                        .defer(async move {
                            let _ = next.fetch_add(1, SeqCst);
                        })
                        .name("raced");
                    (collection, handle)
                })
                .unwrap()
        };
        let (one, other) = std::thread::scope(|scope| {
            let one = scope.spawn(|| {
                start.wait();
                handle.cancel()
            });
            let other = scope.spawn(|| {
                start.wait();
                collection.forget("raced")
            });
            (one.join().unwrap(), other.join().unwrap())
        });
        layer.handle().wait_idle().await;
        let run = ran.load(SeqCst) - ran_before;
        assert_eq!(usize::from(one) + other + run, 1);
        cancelled += usize::from(one);
        forgotten += other;
    }
    let of_raced = events.of("raced");
    let count = |event: &str| of_raced.iter().filter(|line| *line == event).count();
    assert_eq!(count("registered"), ROUNDS);
    assert_eq!(count("cancelled"), cancelled + forgotten);
    assert_eq!(count("finished ok"), ran.load(SeqCst));
    assert_eq!(ran.load(SeqCst) + cancelled + forgotten, ROUNDS);
}

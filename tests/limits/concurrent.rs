//! `concurrent()`: the callbacks of one scope run side by side.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use axum_defer::{DeferLayer, DeferredCallbackCollection, defer, defer_blocking};
use tokio::sync::Barrier;

use crate::support::{events::Events, in_time};

fn observed() -> (DeferLayer, Events) {
    let events = Events::default();
    (
        DeferLayer::new().concurrent().observer(events.clone()),
        events,
    )
}

#[tokio::test]
async fn callbacks_that_wait_for_each_other_meet() {
    let (layer, events) = observed();
    let all = Arc::new(Barrier::new(10));
    let scope = layer.scope(async {
        for _ in 0..10 {
            let all = all.clone();
            defer(async move {
                all.wait().await;
            });
        }
    });
    in_time(scope).await;
    assert_eq!(events.starting_with("finished - ok").len(), 10);
}

#[tokio::test]
async fn one_after_the_other_they_would_not_have_met() {
    let layer = DeferLayer::new();
    let both = Arc::new(Barrier::new(2));
    let mut scope = Box::pin(layer.scope(async {
        for _ in 0..2 {
            let both = both.clone();
            defer(async move {
                both.wait().await;
            });
        }
    }));
    for _ in 0..100 {
        assert!(futures_util::poll!(&mut scope).is_pending());
        tokio::task::yield_now().await;
    }
    assert_eq!((layer.handle().running(), layer.handle().pending()), (1, 1));
}

#[tokio::test]
async fn they_start_in_the_order_of_their_registration() {
    let (layer, events) = observed();
    let all = Arc::new(Barrier::new(3));
    let scope = layer.scope(async {
        for name in ["a", "b", "c"] {
            let all = all.clone();
            defer(async move {
                all.wait().await;
            })
            .name(name);
        }
    });
    in_time(scope).await;
    assert_eq!(
        events.starting_with("started"),
        ["started a", "started b", "started c"]
    );
}

#[tokio::test]
async fn blocking_callbacks_run_side_by_side_too() {
    let (layer, events) = observed();
    let both = Arc::new(std::sync::Barrier::new(2));
    let scope = layer.scope(async {
        for _ in 0..2 {
            let both = both.clone();
            defer_blocking(move || {
                both.wait();
            });
        }
    });
    in_time(scope).await;
    assert_eq!(events.starting_with("finished - ok").len(), 2);
}

#[tokio::test]
async fn what_a_callback_defers_starts_at_once_beside_it() {
    let (layer, events) = observed();
    let both = Arc::new(Barrier::new(2));
    let scope = layer.scope(async {
        defer(async move {
            let inner = both.clone();
            // The handle is kept for as long as the outer one runs, and holds up nobody.
            let nested = defer(async move {
                inner.wait().await;
            });
            both.wait().await;
            drop(nested);
        });
    });
    in_time(scope).await;
    assert_eq!(events.starting_with("finished - ok").len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_other_threads_defer_during_the_run_starts_at_once() {
    let (layer, events) = observed();
    for _ in 0..200 {
        let both = Arc::new(Barrier::new(2));
        let (sent, received) = tokio::sync::oneshot::channel();
        let inner = both.clone();
        let scope = tokio::spawn(layer.scope(async {
            let current = DeferredCallbackCollection::current().unwrap();
            defer(async move {
                let _ = sent.send(current);
                both.wait().await;
            });
        }));
        let running = received.await.unwrap();
        running.defer(async move {
            inner.wait().await;
        });
        in_time(scope).await.unwrap();
        in_time(layer.handle().wait_idle()).await;
    }
    assert_eq!(events.starting_with("finished - ok").len(), 400);
}

#[tokio::test]
async fn late_callbacks_run_side_by_side_as_well() {
    let (layer, events) = observed();
    let late = layer
        .scope(async { Err::<(), _>(DeferredCallbackCollection::current().unwrap()) })
        .await
        .unwrap_err();
    let both = Arc::new(Barrier::new(2));
    for name in ["one", "other"] {
        let both = both.clone();
        late.defer(async move {
            both.wait().await;
        })
        .name(name)
        .always();
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    }
    in_time(layer.handle().wait_idle()).await;
    assert_eq!(events.of("one").last().unwrap(), "finished ok");
    assert_eq!(events.of("other").last().unwrap(), "finished ok");
}

#[tokio::test]
async fn one_that_panics_fails_or_is_skipped_stops_no_other() {
    let (layer, events) = observed();
    let both = Arc::new(Barrier::new(2));
    let (one, other) = (both.clone(), both);
    let scope = layer.scope(async {
        defer(async move {
            one.wait().await;
        })
        .name("one");
        defer(async { panic!("of the callback") }).name("panic");
        defer(async { Err::<(), _>("no luck") }).name("error");
        defer(async {}).name("skipped").when(|_| false);
        defer(pending::<()>()).name("stuck").timeout(Duration::ZERO);
        defer(async move {
            other.wait().await;
        })
        .name("other");
    });
    in_time(scope).await;
    for (name, last) in [
        ("one", "finished ok"),
        ("panic", "finished panicked: of the callback"),
        ("error", "finished error: no luck"),
        ("skipped", "skipped Complete"),
        ("stuck", "finished timed out after 0ns"),
        ("other", "finished ok"),
    ] {
        assert_eq!(events.of(name).last().unwrap(), last, "{name}");
    }
}

#[tokio::test]
async fn they_share_one_turn_under_max_concurrency() {
    let layer = DeferLayer::new().concurrent().max_concurrency(1);
    let both = Arc::new(Barrier::new(2));
    let scopes: Vec<_> = (0..3)
        .map(|_| {
            let both = both.clone();
            tokio::spawn(layer.scope(async move {
                for _ in 0..2 {
                    let both = both.clone();
                    defer(async move {
                        both.wait().await;
                    });
                }
            }))
        })
        .collect();
    for scope in scopes {
        in_time(scope).await.unwrap();
    }
}

#[tokio::test]
async fn a_thousand_side_by_side_are_all_run() {
    let (layer, events) = observed();
    let ran = Arc::new(AtomicUsize::new(0));
    let scope = layer.scope(async {
        for _ in 0..1_000 {
            let ran = ran.clone();
            defer(async move {
                tokio::task::yield_now().await;
                ran.fetch_add(1, SeqCst);
                defer(async {});
            });
        }
    });
    in_time(scope).await;
    assert_eq!(ran.load(SeqCst), 1_000);
    assert_eq!(events.starting_with("finished - ok").len(), 2_000);
}

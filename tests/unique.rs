//! `.unique()`: at most one of a name pending or running in the whole layer.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/events.rs"]
mod events;
#[path = "support/gate.rs"]
mod gate;

use std::{
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use axum_defer::{DeferLayer, DeferredCallback, DeferredCallbackCollection, defer};
use events::observed;
use gate::Gate;

/// A unit of work of the layer that goes on for as long as this is kept.
async fn open(layer: &DeferLayer) -> DeferredCallbackCollection {
    let scope = Arc::new(tokio::sync::Mutex::new(None));
    let kept = scope.clone();
    tokio::spawn(layer.scope(async move {
        *kept.lock().await = DeferredCallbackCollection::current();
        pending::<()>().await;
    }));
    loop {
        if let Some(collection) = scope.lock().await.take() {
            return collection;
        }
        tokio::task::yield_now().await;
    }
}

/// One unit of work that defers a refresh.
async fn refresh(layer: &DeferLayer) {
    layer
        .scope(async { drop(defer(async {}).name("refresh").unique()) })
        .await;
}

#[tokio::test]
async fn one_that_runs_keeps_the_others_of_its_name_from_running() {
    let (layer, events) = observed();
    let (gate, mut arrivals) = Gate::new();
    let first = tokio::spawn({
        let (layer, gate) = (layer.clone(), gate.clone());
        async move {
            layer
                .scope(async move { drop(defer(gate.pass()).name("refresh").unique()) })
                .await;
        }
    });
    arrivals.recv().await.unwrap();
    refresh(&layer).await;
    refresh(&layer.clone()).await;
    // Another name is another matter, and so is one that does not ask.
    layer
        .scope(async {
            drop(defer(async {}).name("other").unique());
            drop(defer(async {}).name("refresh"));
        })
        .await;
    gate.open();
    first.await.unwrap();
    refresh(&layer).await;

    assert_eq!(
        events.starting_with("duplicate"),
        ["duplicate refresh", "duplicate refresh"]
    );
    assert_eq!(events.starting_with("skipped"), [""; 0]);
    let finished = events.starting_with("finished refresh");
    assert_eq!(finished.len(), 3, "{finished:?}");
    assert_eq!(events.starting_with("finished other").len(), 1);
}

#[tokio::test]
async fn one_that_is_pending_does_so_too() {
    let (layer, events) = observed();
    let collection = open(&layer).await;
    let handle = collection.defer(async {}).name("refresh").unique();
    refresh(&layer).await;
    assert_eq!(events.of("refresh"), ["registered", "duplicate"]);
    assert!(handle.cancel());
    refresh(&layer).await;
    assert!(events.of("refresh").last().unwrap().starts_with("finished"));
}

#[tokio::test]
async fn the_order_of_name_and_unique_makes_no_difference() {
    for named_first in [true, false] {
        let (layer, events) = observed();
        let both = |handle: DeferredCallback| match named_first {
            true => handle.name("refresh").unique(),
            false => handle.unique().name("refresh"),
        };
        let held = both(open(&layer).await.defer(async {}));
        layer.scope(async { drop(both(defer(async {}))) }).await;
        assert_eq!(events.starting_with("duplicate").len(), 1);
        drop(held);
    }
}

#[tokio::test]
async fn a_new_name_frees_the_old_one() {
    let (layer, events) = observed();
    let held = open(&layer).await.defer(async {}).name("refresh").unique();
    let held = held.name("something else");
    refresh(&layer).await;
    assert_eq!(events.starting_with("duplicate"), [""; 0]);
    drop(held);
}

#[tokio::test]
async fn without_a_name_it_does_nothing() {
    let (layer, events) = observed();
    let held = open(&layer).await.defer(async {}).unique();
    layer.scope(async { drop(defer(async {}).unique()) }).await;
    assert_eq!(events.starting_with("duplicate"), [""; 0]);
    drop(held);
}

#[tokio::test]
async fn within_one_scope_the_last_one_stays() {
    let (layer, events) = observed();
    let runs = Arc::new(AtomicUsize::new(0));
    let counted = runs.clone();
    layer
        .scope(async move {
            for number in 1..=3 {
                let runs = counted.clone();
                defer(async move { runs.store(number, SeqCst) })
                    .name("refresh")
                    .unique();
            }
        })
        .await;
    assert_eq!(runs.load(SeqCst), 3);
    assert_eq!(events.starting_with("duplicate"), [""; 0]);
    assert_eq!(events.starting_with("replaced").len(), 2);
}

#[tokio::test(start_paused = true)]
async fn however_the_first_ends_the_next_one_runs() {
    type Ends = fn();
    let ends: [(&str, Ends); 5] = [
        ("panicked", || {
            defer(async { panic!("on purpose") })
                .name("refresh")
                .unique();
        }),
        ("error", || {
            defer(async { Err::<(), _>("no luck") })
                .name("refresh")
                .unique();
        }),
        ("timed out", || {
            defer(pending::<()>())
                .name("refresh")
                .unique()
                .timeout(Duration::from_secs(5));
        }),
        ("skipped", || {
            defer(async {}).name("refresh").unique().when(|_| false);
        }),
        ("cancelled", || {
            defer(async {}).name("refresh").unique().cancel();
        }),
    ];
    for (end, defers) in ends {
        let (layer, events) = observed();
        layer.scope(async { defers() }).await;
        let told = events.all().join("\n");
        assert!(told.contains(end), "{end}: {told}");
        refresh(&layer).await;
        let told = events.of("refresh");
        assert_eq!(told.last().unwrap(), "finished ok", "after {end}: {told:?}");
    }
}

#[test]
fn one_that_is_lost_with_its_runtime_gives_its_name_back() {
    let (layer, events) = observed();
    let runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap()
    };
    let first = runtime();
    first.block_on(async {
        tokio::spawn(layer.scope(async { drop(defer(pending::<()>()).name("refresh").unique()) }));
        while layer.handle().running() == 0 {
            tokio::task::yield_now().await;
        }
    });
    drop(first);
    assert_eq!(events.starting_with("lost").len(), 1);
    runtime().block_on(refresh(&layer));
    assert_eq!(events.of("refresh").last().unwrap(), "finished ok");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_at_once_no_two_run_side_by_side() {
    let (layer, events) = observed();
    let inside = Arc::new(AtomicUsize::new(0));
    let requests: Vec<_> = (0..500)
        .map(|_| {
            let (layer, inside) = (layer.clone(), inside.clone());
            tokio::spawn(async move {
                layer
                    .scope(async move {
                        defer(async move {
                            assert_eq!(inside.fetch_add(1, SeqCst), 0);
                            tokio::task::yield_now().await;
                            inside.fetch_sub(1, SeqCst);
                        })
                        .name("refresh")
                        .unique();
                    })
                    .await;
            })
        })
        .collect();
    for request in requests {
        request.await.unwrap();
    }
    let ran = events.starting_with("finished refresh ok").len();
    let duplicates = events.starting_with("duplicate").len();
    assert!(ran >= 1);
    assert_eq!(ran + duplicates, 500, "no other end");
}

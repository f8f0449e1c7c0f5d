//! Names across scopes: `unique` and `coalesce`, over requests and over `DeferLayer::scope`.
#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::{Path, Request},
    http::StatusCode,
    response::Response,
    routing::get,
};
use axum_defer::{
    DeferHandle, DeferLayer, DeferredCallback, DeferredCallbackCollection, defer, scope,
    testing::Recorder,
};
use http_body_util::BodyExt;
use tokio::{sync::oneshot, task::JoinHandle};
use tower::ServiceExt;

use crate::support::gate::{Arrivals, Gate};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Plain,
    Unique,
    Coalesce,
}

use Mode::{Coalesce, Plain, Unique};

impl Mode {
    /// Sets the option, and the name `refresh`.
    fn set(self, handle: DeferredCallback) -> DeferredCallback {
        let handle = handle.name("refresh");
        match self {
            Plain => handle,
            Unique => handle.unique(),
            Coalesce => handle.coalesce(),
        }
    }

    /// Defers a callback that ends at once.
    fn defer(self) {
        drop(self.set(defer(async {})));
    }
}

/// A layer with its recorder.
struct Layer {
    layer: DeferLayer,
    recorder: Recorder,
    deferred: DeferHandle,
}

impl Layer {
    fn new() -> Self {
        Self::with(DeferLayer::new())
    }

    fn with(layer: DeferLayer) -> Self {
        let recorder = Recorder::new();
        let layer = layer.observer(recorder.clone());
        let deferred = layer.handle();
        Self {
            layer,
            recorder,
            deferred,
        }
    }

    /// Runs a callback `refresh` on a task until the gate is opened.
    async fn hold(&self, mode: Mode) -> Held {
        let (gate, mut arrivals) = Gate::new();
        let pass = gate.clone().pass();
        let task = tokio::spawn(self.layer.scope(async move {
            drop(mode.set(defer(pass)));
        }));
        arrivals.recv().await.unwrap();
        Held { gate, task }
    }

    /// Opens a scope on a task that defers a callback `refresh`.
    fn spawn(&self, mode: Mode) -> JoinHandle<()> {
        tokio::spawn(self.layer.scope(async move { mode.defer() }))
    }

    /// Runs a scope that defers a callback `refresh`, to its end.
    async fn run(&self, mode: Mode) {
        self.layer.scope(async move { mode.defer() }).await;
    }
}

/// A running callback.
struct Held {
    gate: Gate,
    task: JoinHandle<()>,
}

impl Held {
    async fn release(self) {
        self.gate.open();
        self.task.await.unwrap();
    }
}

async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

async fn in_time<F: Future>(future: F) -> F::Output {
    let limit = Duration::from_secs(60);
    match tokio::time::timeout(limit, future).await {
        Ok(output) => output,
        Err(_) => panic!("it did not end"),
    }
}

/// An app that defers a callback `refresh`, which waits for the gate at `/gate/{status}`.
struct App {
    router: Router,
    gate: Gate,
    arrivals: Arrivals,
    recorder: Recorder,
    deferred: DeferHandle,
}

impl App {
    fn new(mode: Mode) -> Self {
        let Layer {
            layer,
            recorder,
            deferred,
        } = Layer::new();
        let (gate, arrivals) = Gate::new();
        let shared = gate.clone();
        let handler = move |Path((callback, status)): Path<(String, u16)>| async move {
            drop(mode.set(defer(async move {
                if callback == "gate" {
                    shared.pass().await;
                }
            })));
            (StatusCode::from_u16(status).unwrap(), "body")
        };
        let router = Router::new()
            .route("/{callback}/{status}", get(handler))
            .layer(layer);
        Self {
            router,
            gate,
            arrivals,
            recorder,
            deferred,
        }
    }

    /// Leaves the body of the response unread.
    async fn send(&self, path: &str) -> Response {
        let request = Request::get(path).body(Body::empty()).unwrap();
        self.router.clone().oneshot(request).await.unwrap()
    }

    async fn read(&self, path: &str) {
        let response = self.send(path).await;
        response.into_body().collect().await.unwrap();
    }
}

// When a name is claimed

#[tokio::test]
async fn unread_response_claims_no_name() {
    for mode in [Unique, Coalesce] {
        let app = App::new(mode);
        let unread = app.send("/quick/200").await;
        app.read("/quick/200").await;
        settle().await;
        app.recorder.assert_succeeded(["refresh"]);

        drop(unread);
        app.deferred.wait_idle().await;
        app.recorder.assert_succeeded(["refresh", "refresh"]);
        app.recorder.assert_deduplicated([]);
    }
}

#[tokio::test]
async fn failed_request_claims_no_name() {
    for mode in [Unique, Coalesce] {
        let app = App::new(mode);
        app.read("/gate/409").await;
        app.read("/quick/200").await;
        app.deferred.wait_idle().await;
        app.recorder.assert_skipped(["refresh"]);
        app.recorder.assert_succeeded(["refresh"]);
        app.recorder.assert_deduplicated([]);
    }
}

#[tokio::test]
async fn skipped_callback_is_no_duplicate() {
    for mode in [Unique, Coalesce] {
        let mut app = App::new(mode);
        app.read("/gate/200").await;
        app.arrivals.recv().await.unwrap();
        app.read("/quick/409").await;
        settle().await;
        app.recorder.assert_skipped(["refresh"]);
        app.recorder.assert_deduplicated([]);
        app.gate.open();
        app.deferred.wait_idle().await;
    }
}

#[tokio::test(start_paused = true)]
async fn ended_callback_releases_its_name() {
    type Defer = fn(Mode);
    let ends: [(&str, Defer); 6] = [
        ("succeeded", |mode| mode.defer()),
        ("failed: panicked", |mode| {
            drop(mode.set(defer(async { panic!("planned") })));
        }),
        ("failed: error", |mode| {
            drop(mode.set(defer(async { Err::<(), _>("no luck") })));
        }),
        ("failed: timed out", |mode| {
            let limit = Duration::from_secs(5);
            drop(mode.set(defer(pending::<()>())).timeout(limit));
        }),
        ("skipped", |mode| {
            drop(mode.set(defer(async {})).when(|_| false));
        }),
        ("cancelled", |mode| {
            mode.set(defer(async {})).cancel();
        }),
    ];
    for mode in [Unique, Coalesce] {
        for (end, defer) in ends {
            let layer = Layer::new();
            layer.layer.scope(async { defer(mode) }).await;
            let events = layer.recorder.events();
            let last = events.last().unwrap().event.to_string();
            assert!(last.starts_with(end), "{mode:?}: {last} is not {end}");
            layer.recorder.clear();

            layer.run(mode).await;

            layer.recorder.assert_succeeded(["refresh"]);
        }
    }
}

// Which callbacks compete

#[tokio::test]
async fn option_of_arriving_callback_decides() {
    // The running callback, the arriving one, whether that is a duplicate, and whether it is queued.
    let cases = [
        (Unique, Unique, true, false),
        (Coalesce, Unique, true, false),
        (Unique, Coalesce, false, true),
        (Coalesce, Coalesce, false, true),
        (Plain, Unique, false, false),
        (Plain, Coalesce, false, false),
        (Unique, Plain, false, false),
        (Coalesce, Plain, false, false),
    ];
    for (running, arriving, is_duplicate, is_queued) in cases {
        let case = format!("{arriving:?} while {running:?} runs");
        let layer = Layer::new();
        let first = layer.hold(running).await;
        let second = layer.spawn(arriving);
        settle().await;
        let deduplicated = layer.recorder.deduplicated().len();
        assert_eq!(deduplicated, usize::from(is_duplicate), "{case}");
        assert_eq!(layer.deferred.pending(), usize::from(is_queued), "{case}");
        let has_run = layer.recorder.succeeded().len() == 1;
        assert_eq!(has_run, !is_duplicate && !is_queued, "{case}");

        first.release().await;
        second.await.unwrap();
        let succeeded = layer.recorder.succeeded().len();
        assert_eq!(succeeded, 2 - usize::from(is_duplicate), "{case}");
    }
}

#[tokio::test]
async fn option_without_name_has_no_effect() {
    let layer = Layer::new();
    let first = layer.hold(Unique).await;
    layer
        .layer
        .scope(async {
            defer(async {}).unique();
            defer(async {}).coalesce();
        })
        .await;
    assert_eq!(layer.recorder.succeeded().len(), 2);
    first.release().await;
}

#[tokio::test]
async fn clones_of_a_layer_share_its_names() {
    let layer = Layer::new();
    let first = layer.hold(Unique).await;
    let other = DeferLayer::new();
    let clone = layer.layer.clone();
    other.scope(async { Unique.defer() }).await;
    layer.recorder.assert_deduplicated([]);
    clone.scope(async { Unique.defer() }).await;
    layer.recorder.assert_deduplicated(["refresh"]);
    first.release().await;
}

#[tokio::test]
async fn names_of_two_layers_are_separate() {
    let (one, other) = (Layer::new(), Layer::new());
    let first = one.hold(Unique).await;
    other.run(Unique).await;
    other.recorder.assert_succeeded(["refresh"]);
    first.release().await;
}

#[tokio::test]
async fn option_may_precede_the_name() {
    let set = |handle: DeferredCallback, named_first: bool| match named_first {
        true => handle.name("refresh").unique(),
        false => handle.unique().name("refresh"),
    };
    for named_first in [true, false] {
        let layer = Layer::new();
        let (gate, mut arrivals) = Gate::new();
        let pass = gate.clone().pass();
        let task = tokio::spawn(layer.layer.scope(async move {
            drop(set(defer(pass), named_first));
        }));
        arrivals.recv().await.unwrap();
        let second = layer
            .layer
            .scope(async { drop(set(defer(async {}), named_first)) });
        second.await;
        layer.recorder.assert_deduplicated(["refresh"]);
        Held { gate, task }.release().await;
    }
}

#[tokio::test]
async fn only_the_last_name_is_claimed() {
    let layer = Layer::new();
    let (gate, mut arrivals) = Gate::new();
    let pass = gate.clone().pass();
    let task = tokio::spawn(layer.layer.scope(async move {
        drop(Unique.set(defer(pass)).name("other"));
    }));
    arrivals.recv().await.unwrap();
    layer.run(Unique).await;
    layer.recorder.assert_deduplicated([]);
    layer.recorder.assert_succeeded(["refresh"]);
    Held { gate, task }.release().await;
}

#[tokio::test]
async fn last_registration_of_a_scope_runs() {
    for mode in [Unique, Coalesce] {
        let layer = Layer::new();
        let ran = Arc::new(AtomicUsize::new(0));
        let number_of_run = ran.clone();
        let scope = layer.layer.scope(async move {
            for number in 1..=3 {
                let ran = number_of_run.clone();
                drop(mode.set(defer(async move { ran.store(number, SeqCst) })));
            }
        });
        scope.await;
        assert_eq!(ran.load(SeqCst), 3);
        layer.recorder.assert_deduplicated([]);
        layer.recorder.assert_replaced(["refresh", "refresh"]);
    }
}

#[tokio::test]
async fn unique_successor_runs_after_its_holder() {
    for concurrent in [false, true] {
        let layer = Layer::with(match concurrent {
            true => DeferLayer::new().concurrent(),
            false => DeferLayer::new(),
        });
        let running = Arc::new(AtomicUsize::new(0));
        let scope = layer.layer.scope(async move {
            let inner = running.clone();
            let holder = async move {
                running.fetch_add(1, SeqCst);
                let successor = async move { assert_eq!(inner.load(SeqCst), 0) };
                drop(Unique.set(defer(successor)));
                settle().await;
                running.fetch_sub(1, SeqCst);
            };
            drop(Unique.set(defer(holder)));
        });
        in_time(scope).await;
        layer.recorder.assert_succeeded(["refresh", "refresh"]);
        layer.recorder.assert_deduplicated([]);
    }
}

// Queued callbacks

#[tokio::test]
async fn one_request_is_queued_others_are_not() {
    let mut app = App::new(Coalesce);
    app.read("/gate/200").await;
    app.arrivals.recv().await.unwrap();
    for _ in 0..4 {
        app.read("/quick/200").await;
    }
    settle().await;
    app.recorder.assert_deduplicated(["refresh"; 3]);
    let counts = app.deferred.counts();
    assert_eq!((counts.pending, counts.running), (1, 1));
    let listed = app.deferred.snapshot();
    let is_running: Vec<_> = listed
        .iter()
        .map(|callback| callback.is_running())
        .collect();
    assert_eq!(is_running.iter().filter(|running| **running).count(), 1);
    assert_eq!(is_running.len(), 2);

    app.gate.open();
    app.deferred.wait_idle().await;
    app.recorder.assert_succeeded(["refresh", "refresh"]);
}

#[tokio::test]
async fn drain_waits_for_queued_callback() {
    let layer = Layer::new();
    let first = layer.hold(Coalesce).await;
    let second = layer.spawn(Coalesce);
    settle().await;
    let report = layer.deferred.drain(Duration::ZERO).await;
    assert_eq!(report.unfinished.len(), 2, "{report}");

    first.gate.open();
    let report = in_time(layer.deferred.drain(Duration::MAX)).await;

    assert!(report.is_complete(), "{report}");
    layer.recorder.assert_succeeded(["refresh", "refresh"]);
    second.await.unwrap();
}

#[tokio::test]
async fn queued_callback_cannot_be_removed() {
    let layer = Layer::new();
    let first = layer.hold(Coalesce).await;
    let (sent, received) = oneshot::channel();
    let second = tokio::spawn(layer.layer.scope(async move {
        let handle = Coalesce.set(defer(async {}));
        let collection = DeferredCallbackCollection::current().unwrap();
        let _ = sent.send((handle, collection));
    }));
    let (handle, collection) = received.await.unwrap();
    settle().await;

    assert!(!handle.cancel());
    assert_eq!(collection.forget("refresh"), 0);
    collection.defer(async {}).name("refresh");
    settle().await;
    layer.recorder.assert_replaced([]);
    layer.recorder.assert_cancelled([]);

    drop(handle);
    first.release().await;
    second.await.unwrap();
    layer.deferred.wait_idle().await;
    layer.recorder.assert_succeeded(["refresh"; 3]);
}

#[tokio::test]
async fn queued_callback_delays_no_later_one() {
    let layer = Layer::new();
    let first = layer.hold(Coalesce).await;
    let second = tokio::spawn(layer.layer.scope(async {
        Coalesce.defer();
        defer(async {}).name("next");
    }));
    settle().await;
    layer.recorder.assert_succeeded(["next"]);
    first.release().await;
    second.await.unwrap();
    let expected = ["next", "refresh", "refresh"];
    layer.recorder.assert_succeeded(expected);
}

#[tokio::test(start_paused = true)]
async fn timeout_starts_after_the_queue() {
    let layer = Layer::new();
    let first = layer.hold(Coalesce).await;
    let second = tokio::spawn(layer.layer.scope(async {
        let work = tokio::time::sleep(Duration::from_secs(4));
        drop(Coalesce.set(defer(work)).timeout(Duration::from_secs(5)));
    }));
    tokio::time::sleep(Duration::from_secs(60)).await;
    first.release().await;
    second.await.unwrap();
    layer.recorder.assert_nothing_failed();
    layer.recorder.assert_succeeded(["refresh", "refresh"]);
}

#[tokio::test]
async fn queued_callback_holds_no_permit() {
    let layer = Layer::with(DeferLayer::new().max_concurrency(2));
    let first = layer.hold(Coalesce).await;
    let second = layer.spawn(Coalesce);
    settle().await;
    let third = layer
        .layer
        .scope(async { drop(defer(async {}).name("other")) });
    in_time(third).await;
    layer.recorder.assert_succeeded(["other"]);
    first.release().await;
    second.await.unwrap();
}

#[tokio::test]
async fn one_permit_suffices_for_a_queue() {
    let layer = Layer::with(DeferLayer::new().max_concurrency(1));
    let first = layer.hold(Coalesce).await;
    let others: Vec<_> = (0..3).map(|_| layer.spawn(Coalesce)).collect();
    settle().await;
    first.release().await;
    for other in others {
        in_time(other).await.unwrap();
    }
    layer.recorder.assert_nothing_lost();
}

#[tokio::test]
async fn nested_scope_of_holder_is_duplicate() {
    let layer = Layer::new();
    let nested = layer.layer.clone();
    let work = layer.layer.scope(async move {
        let holder = async move {
            // Also through a scope without a layer.
            scope(nested.scope(async { Coalesce.defer() })).await;
        };
        drop(Coalesce.set(defer(holder)));
    });
    in_time(work).await;
    layer.recorder.assert_deduplicated(["refresh"]);
    layer.recorder.assert_succeeded(["refresh"]);
}

#[tokio::test]
async fn queued_callback_of_dropped_scope_moves() {
    let layer = Layer::new();
    let first = layer.hold(Coalesce).await;
    let mut second = Box::pin(layer.run(Coalesce));
    for _ in 0..10 {
        assert!(futures_util::poll!(&mut second).is_pending());
        settle().await;
    }
    drop(second);
    settle().await;
    assert_eq!(layer.deferred.pending(), 1);

    first.release().await;
    in_time(layer.deferred.wait_idle()).await;

    layer.recorder.assert_succeeded(["refresh", "refresh"]);
    layer.recorder.assert_nothing_lost();
}

fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().unwrap()
}

#[test]
fn lost_callback_releases_its_name() {
    for mode in [Unique, Coalesce] {
        let layer = Layer::new();
        let first = runtime();
        let _held = first.block_on(layer.hold(mode));
        drop(first);
        assert_eq!(layer.recorder.lost(), ["refresh"]);
        runtime().block_on(layer.run(mode));
        layer.recorder.assert_succeeded(["refresh"]);
    }
}

#[test]
fn queued_callback_lost_with_runtime() {
    let layer = Layer::new();
    let (of_first, of_second) = (runtime(), runtime());
    let first = of_first.block_on(layer.hold(Coalesce));
    of_second.block_on(async {
        layer.spawn(Coalesce);
        settle().await;
    });
    drop(of_second);
    assert_eq!(layer.recorder.lost(), ["refresh"]);

    of_first.block_on(async {
        first.release().await;
        layer.run(Coalesce).await;
    });
    layer.recorder.assert_succeeded(["refresh", "refresh"]);
}

// Many at once

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn coalesced_runs_never_overlap() {
    let layer = Layer::new();
    let inside = Arc::new(AtomicUsize::new(0));
    let registered = Arc::new(AtomicUsize::new(0));
    let seen = Arc::new(AtomicUsize::new(0));
    let scopes = (0..500).map(|_| {
        let (inside, registered, seen) = (inside.clone(), registered.clone(), seen.clone());
        tokio::spawn(layer.layer.scope(async move {
            registered.fetch_add(1, SeqCst);
            let work = async move {
                assert_eq!(inside.fetch_add(1, SeqCst), 0);
                let input = registered.load(SeqCst);
                tokio::task::yield_now().await;
                seen.store(input, SeqCst);
                inside.fetch_sub(1, SeqCst);
            };
            drop(Coalesce.set(defer(work)));
        }))
    });
    let scopes: Vec<_> = scopes.collect();
    for scope in scopes {
        scope.await.unwrap();
    }
    layer.deferred.wait_idle().await;

    layer.recorder.assert_nothing_failed();
    assert_eq!(seen.load(SeqCst), 500, "the last run started too early");
    let succeeded = layer.recorder.succeeded().len();
    assert_eq!(succeeded + layer.recorder.deduplicated().len(), 500);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unique_runs_never_overlap() {
    let layer = Layer::new();
    let inside = Arc::new(AtomicUsize::new(0));
    let scopes = (0..500).map(|_| {
        let inside = inside.clone();
        tokio::spawn(layer.layer.scope(async move {
            let work = async move {
                assert_eq!(inside.fetch_add(1, SeqCst), 0);
                tokio::task::yield_now().await;
                inside.fetch_sub(1, SeqCst);
            };
            drop(Unique.set(defer(work)));
        }))
    });
    let scopes: Vec<_> = scopes.collect();
    for scope in scopes {
        scope.await.unwrap();
    }
    layer.recorder.assert_nothing_failed();
    let succeeded = layer.recorder.succeeded().len();
    assert_eq!(succeeded + layer.recorder.deduplicated().len(), 500);
}

//! `DeferHandle::snapshot`: who is pending or running, of which request, and for how long.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{thread, time::Duration};

use axum::{Router, body::Body, extract::Request, routing::get};
use axum_defer::{DeferLayer, DeferredCallbackCollection, defer};
use futures_util::FutureExt;
use http_body_util::BodyExt;
use tower::ServiceExt;

use crate::support::gate::Gate;

#[tokio::test(start_paused = true)]
async fn snapshot_lists_pending_and_running() {
    let layer = DeferLayer::new();
    let deferred = layer.handle();
    assert!(deferred.snapshot().is_empty());
    let (gate, mut arrivals) = Gate::new();
    let handler = {
        let gate = gate.clone();
        async move || {
            defer(gate.clone().pass()).name("first");
            defer(async {});
            defer(async {}).name("last");
            "hello"
        }
    };
    let app: Router = Router::new()
        .route("/orders/{id}", get(handler))
        .layer(layer);
    let request = Request::get("/orders/7").body(Body::empty()).unwrap();
    let response = app.oneshot(request).await.unwrap();

    tokio::time::advance(Duration::from_secs(3)).await;
    let before = deferred.snapshot();
    assert!(before.iter().all(|callback| !callback.is_running()));
    assert_eq!(before[0].age(), Some(Duration::from_secs(3)));

    response.into_body().collect().await.unwrap();
    arrivals.recv().await.unwrap();
    tokio::time::advance(Duration::from_secs(4)).await;
    let snapshot = deferred.snapshot();
    let names: Vec<_> = snapshot.iter().map(|callback| callback.name()).collect();
    assert_eq!(names, [Some("first"), None, Some("last")]);
    let ages: Vec<_> = snapshot.iter().map(|callback| callback.age()).collect();
    // That one has run for so long; the others wait since they were registered.
    assert_eq!(ages, [4, 7, 7].map(|age| Some(Duration::from_secs(age))));
    let states: Vec<_> = snapshot
        .iter()
        .map(|callback| callback.is_running())
        .collect();
    assert_eq!(states, [true, false, false]);
    for callback in &snapshot {
        assert_eq!(callback.location().file(), file!());
        let request = callback.request().unwrap();
        assert_eq!(request.path(), "/orders/7");
        #[cfg(feature = "serve")]
        assert_eq!(request.to_string(), "GET /orders/{id}");
    }
    let text = snapshot[0].to_string();
    assert!(
        text.starts_with("first (tests/observing/snapshot.rs:"),
        "{text}"
    );
    assert!(text.contains(", running, GET /orders/"), "{text}");

    gate.open();
    deferred.wait_idle().await;
    assert!(deferred.snapshot().is_empty());
}

#[tokio::test]
async fn snapshot_of_scope_has_no_request() {
    let layer = DeferLayer::new();
    let deferred = layer.handle();
    layer
        .scope(async {
            defer(async {}).name("mail");
            let snapshot = deferred.snapshot();
            assert_eq!(snapshot.len(), 1);
            assert_eq!(snapshot[0].request(), None);
            assert!(snapshot[0].age().is_some());
        })
        .await;
}

/// One callback at a time moves between scopes that are in several shards.
#[test]
fn counts_never_exceed_what_existed() {
    let layer = DeferLayer::new();
    let deferred = layer.handle();
    // The shard of a scope depends on the thread that opens it.
    let open = || {
        let unit = layer.scope(async { DeferredCallbackCollection::current().ok_or(()) });
        unit.now_or_never().unwrap().unwrap()
    };
    let opened_elsewhere = |_| thread::scope(|threads| threads.spawn(open).join().unwrap());
    let scopes: Vec<_> = (0..8).map(opened_elsewhere).collect();
    thread::scope(|threads| {
        let mover = threads.spawn(|| {
            for _ in 0..20_000 {
                for scope in &scopes {
                    // It does not run, because its handle is held.
                    assert!(scope.defer(async {}).cancel());
                }
            }
        });
        while !mover.is_finished() {
            let counts = deferred.counts();
            assert!(counts.total() <= 1, "{counts:?}");
        }
    });
    assert_eq!(deferred.counts().total(), 0);
}

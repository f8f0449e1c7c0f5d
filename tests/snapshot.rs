//! `DeferHandle::snapshot`: who is pending or running, of which request, and for how long.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/gate.rs"]
mod gate;

use std::{sync::mpsc, thread, time::Duration};

use axum::{Router, body::Body, extract::Request, routing::get};
use axum_defer::{DeferLayer, defer};
use futures_util::FutureExt;
use gate::Gate;
use http_body_util::BodyExt;
use tower::ServiceExt;

#[tokio::test(start_paused = true)]
async fn it_names_what_is_pending_and_running_with_request_and_age() {
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
    assert!(text.starts_with("first (tests/snapshot.rs:"), "{text}");
    assert!(text.contains(", running, GET /orders/"), "{text}");

    gate.open();
    deferred.wait_idle().await;
    assert!(deferred.snapshot().is_empty());
}

#[tokio::test]
async fn a_scope_is_no_request() {
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

#[tokio::test]
async fn without_a_handle_no_times_are_kept() {
    let layer = DeferLayer::new();
    let later = layer.clone();
    // Neither of these observes the callbacks of later scopes.
    assert!(!format!("{layer:?} {:?}", layer.layer(())).is_empty());
    drop(layer.handle());
    layer
        .scope(async move {
            assert!(!format!("{later:?}").is_empty());
            defer(async {});
            let snapshot = later.handle().snapshot();
            assert_eq!(snapshot.len(), 1);
            assert_eq!(snapshot[0].age(), None);
        })
        .await;
}

/// Each token is one callback at a time, which moves from thread to thread.
#[test]
fn counts_never_exceed_what_existed() {
    const THREADS: usize = 4;
    const TOKENS: usize = 6;
    const HOPS: usize = 3_000;
    let layer = DeferLayer::new();
    let deferred = layer.handle();
    let (senders, receivers): (Vec<_>, Vec<_>) = (0..THREADS).map(|_| mpsc::channel()).unzip();
    for token in 0..TOKENS {
        senders[token % THREADS].send(HOPS).unwrap();
    }
    thread::scope(|threads| {
        let mut workers = Vec::new();
        for (number, hops) in receivers.into_iter().enumerate() {
            let next = senders[(number + 1) % THREADS].clone();
            let layer = &layer;
            workers.push(threads.spawn(move || {
                // A token that has ended ends the thread that has it, and so all others.
                while let Ok(hops) = hops.recv() {
                    let unit = layer.scope(async { drop(defer(async {})) });
                    assert!(unit.now_or_never().is_some());
                    if hops == 0 || next.send(hops - 1).is_err() {
                        break;
                    }
                }
            }));
        }
        drop(senders);
        while workers.iter().any(|worker| !worker.is_finished()) {
            let counts = deferred.counts();
            assert!(counts.total() <= TOKENS, "{counts:?}");
        }
    });
    assert_eq!(deferred.counts().total(), 0);
}

//! Scopes outside of handlers: `in_current_scope`, `in_scope`, `defer_or_spawn`; and waiting for idle
//! inside of a scope.
#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    future::pending,
    panic::catch_unwind,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{Router, body::Body, extract::Request, response::Response, routing::get};
use axum_defer::{
    Completion, DeferLayer, DeferredCallbackCollection, InScope, defer, defer_or_spawn,
    testing::Recorder, try_defer,
};
use http_body_util::BodyExt;
use tokio::sync::oneshot;
use tower::ServiceExt;

use crate::support::gate::Gate;

fn observed() -> (DeferLayer, Recorder) {
    let recorder = Recorder::new();
    (DeferLayer::new().observer(recorder.clone()), recorder)
}

async fn send(app: &Router) -> Response {
    let request = Request::new(Body::empty());
    app.clone().oneshot(request).await.unwrap()
}

async fn read(app: &Router) {
    let response = send(app).await;
    response.into_body().collect().await.unwrap();
}

async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

/// Defers when it is dropped.
struct DefersOnDrop;

impl Drop for DefersOnDrop {
    fn drop(&mut self) {
        if let Ok(handle) = try_defer(async {}) {
            drop(handle.name("on drop"));
        }
    }
}

#[tokio::test]
async fn plain_task_has_no_scope() {
    let (layer, recorder) = observed();
    let handler = || async {
        let task = tokio::spawn(async { try_defer(async {}).is_err() });
        assert!(task.await.unwrap());
        "hello"
    };
    read(&Router::new().route("/", get(handler)).layer(layer)).await;
    assert!(recorder.registered().is_empty());
}

#[tokio::test]
async fn task_in_scope_defers_to_its_request() {
    let in_current_scope = || async {
        let work = async { drop(defer(async {}).name("task")) };
        tokio::spawn(work.in_current_scope()).await.unwrap();
        "hello"
    };
    let in_scope = |deferred: DeferredCallbackCollection| async move {
        let work = async { drop(defer(async {}).name("task")) };
        tokio::spawn(deferred.in_scope(work)).await.unwrap();
        "hello"
    };
    for handler in [get(in_current_scope), get(in_scope)] {
        let (layer, recorder) = observed();
        let deferred = layer.handle();
        let app: Router = Router::new().route("/", handler).layer(layer);

        let response = send(&app).await;
        settle().await;
        assert_eq!(recorder.registered(), ["task"]);
        recorder.assert_succeeded([]);
        response.into_body().collect().await.unwrap();
        deferred.wait_idle().await;

        recorder.assert_succeeded(["task"]);
    }
}

#[tokio::test]
async fn response_and_drain_ignore_the_task() {
    let (layer, recorder) = observed();
    let deferred = layer.handle();
    let (gate, mut arrivals) = Gate::new();
    let opened = gate.clone();
    let handler = move || async move {
        defer(async {}).name("handler");
        let work = async move {
            gate.pass().await;
            defer(async {}).name("late");
        };
        tokio::spawn(work.in_current_scope());
        "hello"
    };
    let app: Router = Router::new().route("/", get(handler)).layer(layer);

    read(&app).await;
    arrivals.recv().await.unwrap();
    let report = deferred.drain(Duration::MAX).await;
    assert!(report.is_complete(), "{report}");
    recorder.assert_succeeded(["handler"]);

    opened.open();
    while recorder.registered().len() < 2 {
        tokio::task::yield_now().await;
    }
    deferred.wait_idle().await;
    recorder.assert_succeeded(["handler", "late"]);
}

#[tokio::test]
async fn late_callback_gets_same_completion() {
    let layer = DeferLayer::new();
    let deferred = layer.handle();
    let (gate, mut arrivals) = Gate::new();
    let opened = gate.clone();
    let (sent, received) = oneshot::channel();
    let sent = Arc::new(Mutex::new(Some(sent)));
    let handler = move || async move {
        let work = async move {
            gate.pass().await;
            defer(move |completion: Completion| async move {
                let _ = sent.lock().unwrap().take().unwrap().send(completion);
            });
        };
        tokio::spawn(work.in_current_scope());
        "hello"
    };
    read(&Router::new().route("/", get(handler)).layer(layer)).await;
    arrivals.recv().await.unwrap();
    opened.open();

    let completion = received.await.unwrap();

    deferred.wait_idle().await;
    assert_eq!(completion.status().unwrap(), 200);
    assert_eq!(completion.body_bytes(), 5);
}

#[tokio::test]
async fn future_is_dropped_inside_its_scope() {
    let (layer, recorder) = observed();
    let (sent, mut received) = tokio::sync::mpsc::unbounded_channel();
    layer
        .scope(async move {
            let guard = DefersOnDrop;
            let never_polled = async move {
                let _guard = guard;
                pending::<()>().await;
            };
            let _ = sent.send(never_polled.in_current_scope());
        })
        .await;
    let future = received.recv().await.unwrap();
    recorder.assert_succeeded([]);

    drop(future);

    layer.handle().wait_idle().await;
    recorder.assert_succeeded(["on drop"]);
}

#[tokio::test]
async fn aborted_task_is_dropped_inside_scope() {
    let (layer, recorder) = observed();
    let (gate, mut arrivals) = Gate::new();
    let mut task = None;
    let spawned = &mut task;
    layer
        .scope(async move {
            let work = async move {
                let _guard = DefersOnDrop;
                gate.pass().await;
            };
            *spawned = Some(tokio::spawn(work.in_current_scope()));
        })
        .await;
    arrivals.recv().await.unwrap();
    let task = task.unwrap();
    task.abort();
    assert!(task.await.unwrap_err().is_cancelled());
    layer.handle().wait_idle().await;
    recorder.assert_succeeded(["on drop"]);
}

#[tokio::test]
async fn scope_is_captured_by_the_call() {
    let (outer, of_outer) = observed();
    let (inner, of_inner) = observed();
    outer
        .scope(async {
            let future = async { drop(defer(async {}).name("captured")) }.in_current_scope();
            inner
                .scope(async {
                    future.await;
                    defer(async {}).name("other");
                })
                .await;
        })
        .await;
    of_outer.assert_succeeded(["captured"]);
    of_inner.assert_succeeded(["other"]);
}

#[tokio::test]
async fn without_scope_future_is_unchanged() {
    let current = || DeferredCallbackCollection::current().is_some();
    assert!(!async move { current() }.in_current_scope().await);

    // It does not hide a scope in which it is polled.
    let outside = async move { current() }.in_current_scope();
    let (layer, _) = observed();
    let mut found = false;
    let result = &mut found;
    layer.scope(async move { *result = outside.await }).await;
    assert!(found);
}

#[tokio::test]
async fn before_response_works_in_task() {
    let (layer, recorder) = observed();
    let handler = || async {
        let work = async {
            axum_defer::before_response(async {}).name("commit");
        };
        tokio::spawn(work.in_current_scope()).await.unwrap();
        "hello"
    };
    let _unread = send(&Router::new().route("/", get(handler)).layer(layer)).await;
    recorder.assert_succeeded(["commit"]);
}

#[tokio::test]
async fn defer_or_spawn_joins_its_request() {
    let (layer, recorder) = observed();
    let deferred = layer.handle();
    let handler = || async {
        defer_or_spawn(async {}).name("mail");
        "hello"
    };
    let app: Router = Router::new().route("/", get(handler)).layer(layer);

    let response = send(&app).await;
    settle().await;
    recorder.assert_succeeded([]);
    response.into_body().collect().await.unwrap();
    deferred.wait_idle().await;

    recorder.assert_succeeded(["mail"]);
}

#[tokio::test]
async fn defer_or_spawn_outside_runs_on_a_task() {
    let (sent, received) = oneshot::channel();
    defer_or_spawn(move |completion: Completion| async move {
        let _ = sent.send(completion);
    });
    let completion = received.await.unwrap();
    assert!(completion.is_success() && completion.is_complete());
    assert_eq!(completion.status(), None);
}

#[tokio::test]
async fn defer_or_spawn_waits_for_its_handle() {
    let (sent, mut received) = oneshot::channel();
    let handle = defer_or_spawn(async move {
        let _ = sent.send(());
    });
    settle().await;
    assert!(received.try_recv().is_err());

    drop(handle);

    received.await.unwrap();
}

#[tokio::test]
async fn defer_or_spawn_outside_obeys_options() {
    let (sent, received) = oneshot::channel::<()>();
    let skipped = defer_or_spawn(async move {
        let _ = sent.send(());
    });
    drop(skipped.when(|completion| !completion.is_success()));
    assert!(received.await.is_err());

    let (sent, received) = oneshot::channel::<()>();
    assert!(
        defer_or_spawn(async move {
            let _ = sent.send(());
        })
        .cancel()
    );
    assert!(received.await.is_err());
}

#[tokio::test]
async fn defer_or_spawn_callback_may_defer() {
    let (sent, received) = oneshot::channel();
    defer_or_spawn(async move {
        defer(async move {
            let _ = sent.send("nested");
        });
    });
    assert_eq!(received.await.unwrap(), "nested");
}

#[test]
fn defer_or_spawn_without_runtime_panics() {
    let panic = catch_unwind(|| drop(defer_or_spawn(async {}))).unwrap_err();
    let message = panic.downcast_ref::<&str>().unwrap();
    assert!(message.contains("outside of a scope and of a Tokio runtime"));
}

#[tokio::test]
async fn waiting_for_own_layer_panics() {
    let (layer, recorder) = observed();
    let (idle, drained) = (layer.handle(), layer.handle());
    layer
        .scope(async move {
            defer(async move { idle.wait_idle().await }).name("wait_idle");
            defer(async move { drop(drained.drain(Duration::MAX).await) }).name("drain");
            defer(async {}).name("next");
        })
        .await;
    for name in ["wait_idle", "drain"] {
        let failure = recorder.failure(name).unwrap();
        assert!(failure.contains("would wait for itself"), "{failure}");
    }
    recorder.assert_succeeded(["next"]);
}

#[tokio::test]
async fn waiting_in_nested_scope_panics() {
    let (layer, recorder) = observed();
    let handle = layer.handle();
    layer
        .scope(async move {
            let nested = async move { axum_defer::scope(handle.wait_idle()).await };
            defer(nested).name("nested");
        })
        .await;
    let failure = recorder.failure("nested").unwrap();
    assert!(failure.contains("would wait for itself"), "{failure}");
}

#[tokio::test]
async fn wait_idle_panics_in_deferring_handler() {
    let (layer, _) = observed();
    let handle = layer.handle();
    let work = layer.scope(async move {
        defer(async {});
        handle.wait_idle().await;
    });
    let panic = tokio::spawn(work).await.unwrap_err().into_panic();
    let message = panic.downcast_ref::<&str>().unwrap();
    assert!(message.contains("would wait for itself"), "{message}");
}

#[tokio::test]
async fn waiting_for_another_layer_works() {
    let (layer, recorder) = observed();
    let other = DeferLayer::new().handle();
    let own = layer.handle();
    layer
        .scope(async move {
            // Nothing is deferred yet.
            own.wait_idle().await;
            defer(async move {
                other.wait_idle().await;
                assert!(other.drain(Duration::MAX).await.is_complete());
            })
            .name("waits");
        })
        .await;
    recorder.assert_succeeded(["waits"]);
}

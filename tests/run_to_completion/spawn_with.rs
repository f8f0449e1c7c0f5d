//! `DeferLayer::spawn_with`: callbacks on something else than a Tokio runtime.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    convert::Infallible,
    future::Future,
    pin::{Pin, pin},
    sync::{Arc, Mutex, mpsc},
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
    time::Duration,
};

use axum::{body::Body, extract::Request, response::Response};
use axum_defer::{
    DeferLayer, DeferredCallbackCollection, before_response, defer, defer_blocking, scope,
};
use futures_util::FutureExt;
use http_body_util::BodyExt;
use tower::{ServiceExt, service_fn};

use crate::support::{
    self,
    events::{Events, observed},
    in_time,
    planned_panics::{PLANNED, silence_planned_panics},
};

/// Runs a future on this thread, and on nothing else.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);

    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }

    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        thread::park();
    }
}

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Tasks that run when the test says so, on its own thread. No Tokio runtime is there.
struct Tasks(mpsc::Receiver<Task>);

impl Tasks {
    fn on(layer: DeferLayer) -> (DeferLayer, Self) {
        let (spawn, tasks) = mpsc::channel();
        let layer = layer.spawn_with(move |task| {
            let _ = spawn.send(task);
        });
        (layer, Self(tasks))
    }

    /// Runs what is there; how many tasks that were.
    fn run(&self) -> usize {
        assert!(tokio::runtime::Handle::try_current().is_err());
        self.0.try_iter().map(block_on).count()
    }
}

/// Answers one request, whose handler is this, and reads its response.
async fn respond(layer: &DeferLayer, handler: fn()) {
    let service = service_fn(move |_: Request| {
        handler();
        async { Ok::<_, Infallible>(Response::new(Body::from("hello"))) }
    });
    let response = layer.layer(service).oneshot(support::get("/")).await;
    response.unwrap().into_body().collect().await.unwrap();
}

fn ok() -> [&'static str; 3] {
    ["registered", "started", "finished ok"]
}

#[test]
fn spawn_with_works_without_runtime() {
    for concurrent in [false, true] {
        let (layer, events) = observed();
        let layer = if concurrent {
            layer.concurrent()
        } else {
            layer
        };
        let (layer, tasks) = Tasks::on(layer.max_concurrency(1));
        block_on(respond(&layer, || {
            defer(async {
                // Joins the same run.
                defer(async {}).name("nested");
            })
            .name("first");
            defer(async {}).name("second");
        }));
        assert_eq!(layer.handle().pending(), 2);
        assert_eq!(tasks.run(), 1);
        for name in ["first", "nested", "second"] {
            assert_eq!(events.of(name), ok());
        }
        assert_eq!(layer.handle().pending(), 0);
    }
}

#[tokio::test]
async fn spawn_with_overrides_the_runtime() {
    let (layer, events) = observed();
    let (layer, tasks) = Tasks::on(layer);
    respond(&layer, || {
        defer(async {}).name("after");
    })
    .await;
    assert_eq!(events.of("after"), ["registered"]);
    thread::spawn(move || assert_eq!(tasks.run(), 1))
        .join()
        .unwrap();
    assert_eq!(events.of("after"), ok());
}

#[test]
fn before_response_continues_without_client() {
    let handler = || {
        before_response(async {}).name("before");
        defer(async {}).name("after").always();
    };
    for client_stays in [true, false] {
        let (layer, events) = observed();
        let (layer, tasks) = Tasks::on(layer);
        let mut response = Box::pin(respond(&layer, handler));
        assert!(response.as_mut().now_or_never().is_none());
        assert_eq!(events.of("before"), ["registered"]);
        if client_stays {
            assert_eq!(tasks.run(), 1);
            block_on(response);
            assert_eq!(tasks.run(), 1);
        } else {
            drop(response);
            while tasks.run() > 0 {}
        }
        assert_eq!(events.of("before"), ok());
        assert_eq!(events.of("after"), ok());
    }
}

#[test]
fn late_callback_gets_its_own_task() {
    let (layer, events) = observed();
    let (layer, tasks) = Tasks::on(layer);
    let mut kept = None;
    block_on(layer.scope(async { kept = DeferredCallbackCollection::current() }));
    kept.unwrap().defer(async {}).name("late");
    assert_eq!(tasks.run(), 1);
    assert_eq!(events.of("late"), ok());
}

#[test]
fn timeout_without_timer_fails_callback() {
    let (layer, events) = observed();
    let (layer, tasks) = Tasks::on(layer);
    block_on(respond(&layer, || {
        defer(async { panic!("it must not run without its limit") })
            .name("limited")
            .timeout(Duration::from_secs(1));
        defer(async {}).name("after");
    }));
    assert_eq!(tasks.run(), 1);
    assert_eq!(
        events.of("limited"),
        [
            "registered",
            "started",
            "finished error: there is no timer for the timeout: the callback runs outside of a Tokio runtime"
        ]
    );
    assert_eq!(events.of("after"), ok());
}

#[test]
fn timeout_without_timer_fails_in_scope() {
    let outcome = Arc::new(Mutex::new(Vec::new()));
    let (layer, events) = observed();
    block_on(layer.timeout(Duration::from_secs(1)).scope(async {
        let outcome = outcome.clone();
        defer(async move { outcome.lock().unwrap().push("ran") }).name("limited");
    }));
    let last = events.of("limited").pop().unwrap();
    assert!(last.contains("there is no timer"), "{last}");
    assert!(outcome.lock().unwrap().is_empty());
    // Without a limit there is no need of one.
    let ran = outcome.clone();
    block_on(scope(async move {
        defer(async move { ran.lock().unwrap().push("unlimited") });
    }));
    assert_eq!(*outcome.lock().unwrap(), ["unlimited"]);
}

#[tokio::test]
async fn timeout_with_timer_ends_callback() {
    tokio::time::pause();
    let (layer, events) = observed();
    let layer = layer.spawn_with(|task| drop(tokio::spawn(task)));
    respond(&layer, || {
        defer(std::future::pending::<()>())
            .name("limited")
            .timeout(Duration::from_secs(1));
    })
    .await;
    in_time(layer.handle().wait_idle()).await;
    let last = events.of("limited").pop().unwrap();
    assert_eq!(last, "finished timed out after 1s");
}

fn is_lost(layer: &DeferLayer, events: &Events) {
    block_on(respond(layer, || {
        defer(async {}).name("lost");
    }));
    assert_eq!(events.of("lost"), ["registered", "lost NoRuntime"]);
    assert_eq!(layer.handle().pending(), 0);
}

#[test]
fn dropped_task_loses_callbacks() {
    silence_planned_panics();
    let (layer, events) = observed();
    is_lost(&layer.spawn_with(drop), &events);
    let (layer, events) = observed();
    is_lost(&layer.spawn_with(|_| panic!("{PLANNED}")), &events);
}

#[test]
fn blocking_callback_needs_a_runtime() {
    let (layer, events) = observed();
    let (layer, tasks) = Tasks::on(layer);
    block_on(respond(&layer, || {
        defer_blocking(|| {}).name("blocking");
        defer(async {}).name("after");
    }));
    assert_eq!(tasks.run(), 1);
    let last = events.of("blocking").pop().unwrap();
    assert!(last.starts_with("finished panicked: "), "{last}");
    assert!(last.contains("Tokio"), "{last}");
    assert_eq!(events.of("after"), ok());
}

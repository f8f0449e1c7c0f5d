//! `DeferLayer::spawn_with`: callbacks on something else than a Tokio runtime.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    convert::Infallible,
    future::Future,
    pin::{Pin, pin},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
        mpsc,
    },
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
    time::Duration,
};

use axum::{Router, body::Body, extract::Request, response::Response, routing::get};
use axum_defer::{
    BeforeResponseFailed, Completion, DeferLayer, DeferredCallbackCollection, Level,
    before_response, defer, defer_blocking, scope,
};
use futures_util::FutureExt;
use http_body_util::BodyExt;
use tower::{ServiceExt, service_fn, util::MapResponseLayer};

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
            "finished error: there is no timer for the timeout: the callback runs outside of a Tokio \
             runtime"
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

/// What a spawner does with the task of the callbacks before the response.
#[derive(Clone, Copy, Debug)]
enum Fault {
    Drops,
    Panics,
    DropsOnAnotherThread,
}

const FAULTS: [Fault; 3] = [Fault::Drops, Fault::Panics, Fault::DropsOnAnotherThread];

impl Fault {
    /// The first task suffers from the fault. Later ones run on the current runtime.
    fn on(self, layer: DeferLayer) -> DeferLayer {
        silence_planned_panics();
        let is_first = AtomicBool::new(true);
        let runtime = tokio::runtime::Handle::current();
        layer.spawn_with(move |task| {
            if !is_first.swap(false, SeqCst) {
                runtime.spawn(task);
                return;
            }
            match self {
                Self::Drops => drop(task),
                Self::Panics => panic!("{PLANNED}"),
                Self::DropsOnAnotherThread => drop(thread::spawn(move || drop(task))),
            }
        })
    }
}

/// The handler's response would have a body, and does not reach the client.
fn commits(ends: &mpsc::Sender<Completion>) -> &'static str {
    before_response(async {}).name("commit");
    defer(async {}).name("mail");
    let ends = ends.clone();
    defer(move |completion: Completion| async move { ends.send(completion).unwrap() }).always();
    "hello"
}

/// Notes the failure that an outer layer sees.
fn with_message(response: Response) -> Response {
    let failed = response.extensions().get::<BeforeResponseFailed>();
    let message = failed.map(|failed| failed.to_string()).unwrap_or_default();
    let (mut parts, body) = response.into_parts();
    parts.headers.insert("message", message.parse().unwrap());
    Response::from_parts(parts, body)
}

#[tokio::test]
async fn commit_without_a_task_becomes_503() {
    for fault in FAULTS {
        for is_flushed in [false, true] {
            let (layer, events) = observed();
            let layer = fault.on(layer);
            let (ends, ended) = mpsc::channel();
            let app = Router::new()
                .route("/", get(async move || commits(&ends)))
                .layer(layer.clone())
                .layer(MapResponseLayer::new(with_message));
            let (listener, address) = support::listen().await;
            let server = match is_flushed {
                true => tokio::spawn(axum_defer::serve(listener, app).into_future().map(drop)),
                false => tokio::spawn(axum::serve(listener, app).into_future().map(drop)),
            };
            let mut client = support::RawClient::connect(address).await;
            client.get("/").await;

            let response = in_time(client.response(false)).await.unwrap();

            assert_eq!(response.status, 503, "{fault:?}");
            assert!(response.body.is_empty());
            let message = "before the response, commit (";
            assert!(response.head.contains(message), "{}", response.head);
            assert!(response.head.contains(") lost"), "{}", response.head);
            in_time(layer.handle().wait_idle()).await;
            assert_eq!(events.of("commit"), ["registered", "lost NoRuntime"]);
            assert_eq!(events.of("mail"), ["registered", "skipped Complete"]);
            let end = ended.try_recv().unwrap();
            assert_eq!(end.status().unwrap(), 503);
            assert!(!end.is_success() && end.is_complete());
            let level = match is_flushed {
                true => Level::Flushed,
                false => Level::HandedOff,
            };
            assert_eq!(end.level(), level);
            server.abort();
        }
    }
}

#[tokio::test]
async fn grpc_commit_without_a_task_is_unavailable() {
    for fault in FAULTS {
        let layer = fault.on(DeferLayer::new_for_grpc());
        let (ends, ended) = mpsc::channel();
        let service = service_fn(move |_: Request| {
            let hello = commits(&ends);
            std::future::ready(Ok::<_, Infallible>(Response::new(Body::from(hello))))
        });
        let response = in_time(layer.layer(service).oneshot(support::get("/"))).await;
        let response = response.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["grpc-status"], "14");
        let failed = response.extensions().get::<BeforeResponseFailed>();
        assert_eq!(failed.unwrap().name(), Some("commit"));
        let body = response.into_body().collect().await.unwrap();
        assert!(body.to_bytes().is_empty());
        in_time(layer.handle().wait_idle()).await;
        let end = ended.try_recv().unwrap();
        assert!(!end.is_success() && end.is_complete(), "{fault:?}");
    }
}

#[test]
fn commit_without_a_runtime_becomes_503() {
    let (layer, events) = observed();
    let service = service_fn(move |_: Request| {
        before_response(async {}).name("commit");
        std::future::ready(Ok::<_, Infallible>(Response::new(Body::from("hello"))))
    });
    let response = layer.layer(service).oneshot(support::get("/"));
    let response = response.now_or_never().unwrap().unwrap();
    assert_eq!(response.status(), 503);
    assert_eq!(events.of("commit"), ["registered", "lost NoRuntime"]);
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

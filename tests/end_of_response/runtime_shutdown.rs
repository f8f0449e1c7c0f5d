//! When the runtime is gone, or was never there, nothing is lost without a word.

use std::{
    convert::Infallible,
    io,
    sync::{Arc, Mutex, mpsc},
    thread,
    time::Duration,
};

use axum::{Router, body::Body, extract::Request, response::Response, routing::get};
use axum_defer::{
    DeferLayer, DeferredCallbackCollection, LostReason, defer, defer_blocking, scope,
};
use futures_util::{FutureExt, StreamExt, stream};
use tokio::runtime::{Builder, Runtime};
use tower::{Service, service_fn};

use crate::support::{self, Log, Server, What, in_time};

fn runtime() -> Runtime {
    Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}

fn lost(name: &str, reason: LostReason) -> (String, What) {
    (name.to_owned(), What::Lost(reason))
}

/// A response that has deferred "a" and "b", with its body unread; needs no runtime.
fn response(layer: &DeferLayer, log: &Log) -> Response {
    let service = service_fn(|_: Request| {
        let log = log.clone();
        async move {
            log.defer("a");
            log.defer("b").always();
            Ok::<_, Infallible>(Response::new(Body::from("hello")))
        }
    });
    let answer = layer.layer(service).call(support::get("/")).now_or_never();
    answer.unwrap().unwrap().map(Body::new)
}

#[test]
fn response_outliving_runtime_loses_all() {
    let (log, mut events) = Log::new();
    let layer = DeferLayer::new().observer(log.clone());
    let runtime = runtime();
    let response = {
        let _entered = runtime.enter();
        response(&layer, &log)
    };
    drop(runtime);
    assert_eq!(layer.handle().pending(), 2);
    drop(response);
    let expected = ["a", "b"].map(|name| lost(name, LostReason::NoRuntime));
    assert_eq!(events.so_far(), expected);
    assert_eq!((layer.handle().pending(), layer.handle().running()), (0, 0));
}

#[test]
fn handler_of_ended_runtime_becomes_503() {
    let handler = service_fn(|_: Request| std::future::pending::<Result<Response, Infallible>>());
    let mut service = DeferLayer::new().run_to_completion().layer(handler);
    let runtime = runtime();
    let mut answer = {
        let _entered = runtime.enter();
        service.call(support::get("/"))
    };
    drop(runtime);
    let response = (&mut answer).now_or_never().unwrap().unwrap();
    assert_eq!(response.status(), 503);
}

#[test]
fn without_runtime_callbacks_are_lost() {
    let (log, mut events) = Log::new();
    let layer = DeferLayer::new().observer(log.clone());
    drop(response(&layer, &log));
    let expected = ["a", "b"].map(|name| lost(name, LostReason::NoRuntime));
    assert_eq!(events.so_far(), expected);

    // Pushed late.
    let mut kept = None;
    let service = service_fn(|_: Request| {
        kept = DeferredCallbackCollection::current();
        std::future::ready(Ok::<_, Infallible>(Response::new(Body::empty())))
    });
    let _ = layer.layer(service).call(support::get("/")).now_or_never();
    drop(kept.unwrap().defer(async {}).name("late"));
    assert_eq!(events.so_far(), [lost("late", LostReason::NoRuntime)]);
    assert_eq!(layer.handle().pending(), 0);
}

#[test]
fn body_dropped_without_runtime_runs_all() {
    let (log, mut events) = Log::new();
    let layer = DeferLayer::new().observer(log.clone());
    let (deferring, other) = (runtime(), runtime());
    let response = {
        let _entered = deferring.enter();
        response(&layer, &log)
    };
    thread::spawn(move || {
        assert!(tokio::runtime::Handle::try_current().is_err());
        drop(response);
    })
    .join()
    .unwrap();
    drop(other);
    deferring.block_on(in_time(layer.handle().wait_idle()));
    assert_eq!(events.ran(), ["a", "b"]);
}

#[test]
fn callbacks_run_on_the_deferring_runtime() {
    let layer = DeferLayer::new();
    let deferring = tokio::runtime::Builder::new_multi_thread()
        .thread_name("deferring")
        .build()
        .unwrap();
    let other = runtime();
    let (ran_on, has_run) = mpsc::channel();
    let service = service_fn(move |_: Request| {
        let ran_on = ran_on.clone();
        defer(async move {
            ran_on
                .send(thread::current().name().map(str::to_owned))
                .unwrap()
        });
        std::future::ready(Ok::<_, Infallible>(Response::new(Body::from("hello"))))
    });
    let answer = {
        let _entered = deferring.enter();
        layer.layer(service).call(support::get("/")).now_or_never()
    };
    let _entered = other.enter();
    drop(answer);
    let ran_on = has_run.recv_timeout(Duration::from_secs(60)).unwrap();
    assert_eq!(ran_on.as_deref(), Some("deferring"));
}

#[test]
fn shutdown_reports_running_and_queued() {
    let (log, mut events) = Log::new();
    let layer = DeferLayer::new().observer(log.clone());
    let (started, has_started) = mpsc::channel();
    let app: Router = Router::new()
        .route(
            "/",
            get(async move || {
                let started = started.clone();
                defer(async move {
                    started.send(()).unwrap();
                    std::future::pending::<()>().await;
                })
                .name("running");
                log.defer("waiting");
                log.defer("waiting too").always();
            }),
        )
        .layer(layer.clone());
    let runtime = runtime();
    runtime.block_on(in_time(async {
        let server = Server::start(app).await;
        let mut client = server.raw().await;
        client.get("/").await;
        client.response(false).await.unwrap();
        has_started.recv().unwrap();
    }));
    drop(runtime);
    let expected = [
        lost("running", LostReason::Interrupted),
        lost("waiting", LostReason::NoRuntime),
        lost("waiting too", LostReason::NoRuntime),
    ];
    assert_eq!(events.so_far(), expected);
    assert_eq!((layer.handle().pending(), layer.handle().running()), (0, 0));
}

#[test]
fn shutdown_in_mid_body_loses_callbacks() {
    for flavour in ["current thread", "multi thread"] {
        let (log, mut events) = Log::new();
        let layer = DeferLayer::new().observer(log.clone());
        let app: Router = Router::new()
            .route(
                "/",
                get(async move || {
                    log.defer("a");
                    log.defer("b").always();
                    let hello = stream::iter([Ok::<_, io::Error>("hello")]);
                    Body::from_stream(hello.chain(stream::pending()))
                }),
            )
            .layer(layer.clone());
        let runtime = match flavour {
            "multi thread" => runtime(),
            _ => Builder::new_current_thread().enable_all().build().unwrap(),
        };
        let open = runtime.block_on(in_time(async {
            let server = Server::start(app).await;
            let mut client = server.raw().await;
            client.get("/").await;
            client.read_until("hello").await;
            (server, client)
        }));
        // The connection, and in it the body, is dropped while no task can be spawned any more.
        drop(runtime);
        let expected = ["a", "b"].map(|name| lost(name, LostReason::NoRuntime));
        assert_eq!(events.so_far(), expected, "{flavour}");
        assert_eq!(layer.handle().pending(), 0);
        drop(open);
    }
}

#[test]
fn unstarted_blocking_callback_is_lost() {
    let (log, mut events) = Log::new();
    let layer = DeferLayer::new().observer(log);
    let runtime = Builder::new_multi_thread()
        .worker_threads(1)
        .max_blocking_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let (occupied, is_occupied) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    runtime.spawn_blocking(move || {
        occupied.send(()).unwrap();
        let _ = released.recv();
    });
    is_occupied.recv().unwrap();
    let (queued, is_queued) = mpsc::channel();
    runtime.spawn(layer.scope(async move {
        defer(async move { queued.send(()).unwrap() }).name("before");
        defer_blocking(|| unreachable!("the pool is occupied")).name("queued");
    }));
    is_queued.recv().unwrap();
    runtime.shutdown_background();
    drop(release);
    let waiting = Builder::new_current_thread().enable_all().build().unwrap();
    let (name, what) = waiting.block_on(events.next());
    assert_eq!(name, "queued");
    assert!(matches!(what, What::Lost(_)), "{what:?}");
}

#[test]
fn blocking_callback_of_ended_pool_is_lost() {
    let (log, mut events) = Log::new();
    let layer = DeferLayer::new().observer(log.clone());
    let gone = runtime().handle().clone();
    let _entered = gone.enter();
    let unit = layer.scope(async {
        defer_blocking(|| unreachable!("there is no pool")).name("blocking");
        log.defer("behind it");
    });
    assert!(unit.now_or_never().is_some());
    let events = events.so_far();
    assert_eq!(events[0], lost("blocking", LostReason::NoRuntime));
    assert!(matches!(&events[1], (name, What::Ran(_)) if name == "behind it"));
    assert_eq!(events.len(), 2);
    assert_eq!((layer.handle().pending(), layer.handle().running()), (0, 0));
}

#[test]
fn scope_without_runtime_runs_in_place() {
    let ran = Arc::new(Mutex::new(false));
    let in_callback = ran.clone();
    let unit = scope(async {
        defer(async move { *in_callback.lock().unwrap() = true });
    });
    assert!(unit.now_or_never().is_some());
    assert!(*ran.lock().unwrap());
}

/// Defers through a collection that was kept, on a thread that has no runtime; it runs.
async fn runs_late(layer: &DeferLayer, collection: DeferredCallbackCollection) {
    let (ran, has_run) = tokio::sync::oneshot::channel();
    thread::spawn(move || {
        assert!(tokio::runtime::Handle::try_current().is_err());
        collection.defer(async { ran.send(()).unwrap() });
    })
    .join()
    .unwrap();
    in_time(has_run).await.expect("it was lost");
    in_time(layer.handle().wait_idle()).await;
}

/// An app whose handler defers nothing and keeps the collection.
fn keeps_the_collection(
    layer: &DeferLayer,
) -> (Router, mpsc::Receiver<DeferredCallbackCollection>) {
    let (keep, kept) = mpsc::channel();
    let handler = async move |collection: DeferredCallbackCollection| {
        keep.send(collection).unwrap();
        "hello"
    };
    let app = Router::new().route("/", get(handler)).layer(layer.clone());
    (app, kept)
}

#[tokio::test]
async fn late_callback_runs_on_request_runtime() {
    for layer in [DeferLayer::new(), DeferLayer::new().run_to_completion()] {
        let (app, kept) = keeps_the_collection(&layer);
        let response = tower::ServiceExt::oneshot(app, support::get::<Body>("/")).await;
        let body = response.unwrap().into_body();
        http_body_util::BodyExt::collect(body).await.unwrap();
        runs_late(&layer, kept.recv().unwrap()).await;

        let (app, kept) = keeps_the_collection(&layer);
        let (listener, address) = support::listen().await;
        let server = tokio::spawn(axum_defer::serve(listener, app).into_future());
        let mut client = support::RawClient::connect(address).await;
        client.get("/").await;
        client.response(false).await.unwrap();
        runs_late(&layer, kept.recv().unwrap()).await;
        server.abort();

        let mut kept = None;
        layer
            .scope(async { kept = DeferredCallbackCollection::current() })
            .await;
        runs_late(&layer, kept.unwrap()).await;
    }
}

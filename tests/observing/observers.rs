//! Observers: every event, in order, with name, place and durations, and nothing they can break.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::HashMap,
    convert::Infallible,
    future::pending,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
        mpsc,
    },
    time::Duration,
};

use axum::{Router, body::Body, http::Request, routing::get};
use axum_defer::{
    CallbackInfo, Completion, DeferLayer, DeferObserver, DeferredCallbackCollection, Delivery,
    Finished, Level, LostReason, ScopeInfo, defer, defer_blocking, sent::SentIo, try_defer,
};
use http_body_util::BodyExt;
use tokio::io::AsyncWriteExt;
use tower::{Layer, ServiceExt};

use crate::support::events::{Events, observed};

const SECOND: Duration = Duration::from_secs(1);

async fn get_root(app: Router) {
    let response = app.oneshot(Request::new(Body::empty())).await.unwrap();
    response.into_body().collect().await.unwrap();
}

/// The file and line of each callback that was registered.
#[derive(Clone, Default)]
struct Places(Arc<Mutex<HashMap<String, (&'static str, u32)>>>);

impl DeferObserver for Places {
    fn registered(&self, callback: &CallbackInfo<'_>) {
        let place = (callback.location().file(), callback.location().line());
        let name = callback.name().unwrap().to_owned();
        assert_eq!(
            callback.to_string(),
            format!("{name} ({})", callback.location())
        );
        self.0.lock().unwrap().insert(name, place);
    }
}

#[tokio::test]
async fn location_is_the_caller() {
    let places = Places::default();
    let layer = DeferLayer::new().observer(places.clone());
    let first = line!() + 4;
    layer
        .scope(async {
            let all = DeferredCallbackCollection::current().unwrap();
            defer(async {}).name("defer");
            defer_blocking(|| {}).name("defer_blocking");
            let _ = try_defer(async {}).map(|callback| callback.name("try_defer"));
            all.defer(async {}).name("collection.defer");
            all.defer_blocking(|| {}).name("blocking");
        })
        .await;
    let places = places.0.lock().unwrap();
    let expected = [
        "defer",
        "defer_blocking",
        "try_defer",
        "collection.defer",
        "blocking",
    ];
    for (line, name) in (first..).zip(expected) {
        assert_eq!(places[name], (file!(), line), "{name}");
    }
}

#[tokio::test]
async fn each_callback_has_one_reported_end() {
    let (layer, events) = observed();
    let inner = layer.handle();
    let app: Router = Router::new()
        .route(
            "/",
            get(|deferred: DeferredCallbackCollection| async move {
                defer(async {}).name("ok");
                defer(async { Err::<(), _>("no luck") }).name("error");
                defer(async { panic!("of the callback") }).name("panic");
                defer(pending::<()>()).name("slow").timeout(Duration::ZERO);
                defer(async {}).name("skipped").when(|_| false);
                defer(async {})
                    .name("predicate")
                    .when(|_| panic!("of the predicate"));
                defer(async {}).name("cancelled").cancel();
                defer(async {}).name("forgotten");
                assert_eq!(deferred.forget("forgotten"), 1);
                defer(async {}).name("twice");
                defer_blocking(|| Err::<(), _>("blocked")).name("twice");
                let late = deferred.clone();
                defer(async move {
                    defer(async {}).name("nested");
                    late.defer(async {}).name("nested");
                })
                .name("outer");
                "hello"
            }),
        )
        .layer(layer);
    let handle = {
        let layer = DeferLayer::new();
        get_root(app.layer(layer.clone())).await;
        layer.handle()
    };
    // The outer layer owns nothing of it.
    assert_eq!((handle.pending(), handle.running()), (0, 0));
    inner.wait_idle().await;

    let expected: &[(&str, &[&str])] = &[
        ("ok", &["started", "finished ok"]),
        ("error", &["started", "finished error: no luck"]),
        ("panic", &["started", "finished panicked: of the callback"]),
        ("slow", &["started", "finished timed out after 0ns"]),
        ("skipped", &["skipped Complete"]),
        ("predicate", &["finished panicked: of the predicate"]),
        ("cancelled", &["cancelled"]),
        ("forgotten", &["cancelled"]),
        ("outer", &["started", "finished ok"]),
    ];
    for (name, rest) in expected {
        let told = events.of(name);
        assert_eq!(told[0], "registered", "{name}");
        assert_eq!(&told[1..], *rest, "{name}");
    }
    assert_eq!(
        events.of("twice"),
        [
            "registered",
            "replaced",
            "registered",
            "started",
            "finished error: blocked"
        ]
    );
    let mut nested = events.of("nested");
    nested.sort();
    assert_eq!(
        nested,
        [
            "finished ok",
            "registered",
            "registered",
            "replaced",
            "started"
        ]
    );
}

#[tokio::test]
async fn events_arrive_in_order() {
    let (layer, events) = observed();
    layer
        .scope(async {
            defer(async {}).name("a");
            let kept = defer(async {}).name("kept");
            defer(async {}).name("b").when(|_| false);
            drop(kept);
            defer(async {}).name("c");
        })
        .await;
    assert_eq!(
        events.all(),
        [
            "registered a",
            // Told when its handle was dropped.
            "registered b",
            "registered kept",
            "registered c",
            "started a",
            "finished a ok",
            "started kept",
            "finished kept ok",
            "skipped b Complete",
            "started c",
            "finished c ok",
        ]
    );
}

#[tokio::test]
async fn name_is_known_at_registration() {
    let (layer, events) = observed();
    let mut handles = Vec::new();
    layer
        .scope(async {
            for name in ["runs", "is cancelled", "is replaced", "is skipped"] {
                handles.push(defer(async {}).name("first").always().name(name));
            }
            assert!(events.all().is_empty(), "their handles are still alive");
            handles[1].cancel();
            assert_eq!(
                events.all(),
                ["registered is cancelled", "cancelled is cancelled"]
            );
            let later = defer(async {}).name("is replaced");
            assert_eq!(events.of("is replaced"), ["registered", "replaced"]);
            drop(later);
            let handle = handles.pop().unwrap();
            handles.push(handle.when(|_| false));
        })
        .await;
    assert_eq!(events.of("runs"), ["registered", "started", "finished ok"]);
    assert_eq!(events.of("is skipped"), ["registered", "skipped Complete"]);
    let told = events.all();
    drop(handles);
    assert_eq!(
        events.all(),
        told,
        "a handle that is dropped late tells nothing"
    );
    assert!(!told.iter().any(|line| line.contains("first")));
}

/// Of each callback that ran: how long it waited and took.
#[derive(Clone, Default)]
struct Durations(Arc<Mutex<Vec<(&'static str, Duration)>>>);

impl DeferObserver for Durations {
    fn started(&self, _: &CallbackInfo<'_>, waited: Duration) {
        self.0.lock().unwrap().push(("waited at the start", waited));
    }

    fn finished(&self, _: &CallbackInfo<'_>, finished: &Finished<'_>) {
        let mut durations = self.0.lock().unwrap();
        durations.push(("waited", finished.queue_time));
        durations.push(("took", finished.run_time));
    }
}

#[tokio::test(start_paused = true)]
async fn queue_time_and_run_time_are_separate() {
    let durations = Durations::default();
    let layer = DeferLayer::new().observer(durations.clone());
    layer
        .scope(async {
            tokio::time::sleep(SECOND).await;
            defer(|| async {
                tokio::time::sleep(2 * SECOND).await;
                defer(|| tokio::time::sleep(SECOND));
                tokio::time::sleep(SECOND).await;
            });
            tokio::time::sleep(5 * SECOND).await;
            defer(|| tokio::time::sleep(7 * SECOND));
            tokio::time::sleep(11 * SECOND).await;
        })
        .await;
    assert_eq!(
        *durations.0.lock().unwrap(),
        [
            ("waited at the start", Duration::ZERO),
            ("waited", Duration::ZERO),
            ("took", 3 * SECOND),
            // Both since the end of the unit of work,
            ("waited at the start", 3 * SECOND),
            ("waited", 3 * SECOND),
            ("took", 7 * SECOND),
            // and the one that came later since its registration.
            ("waited at the start", 8 * SECOND),
            ("waited", 8 * SECOND),
            ("took", SECOND),
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn elapsed_spans_the_whole_response() {
    let (told, mut elapsed) = tokio::sync::mpsc::unbounded_channel();
    let mut next = async || {
        let told = tokio::time::timeout(60 * SECOND, elapsed.recv());
        told.await.unwrap().unwrap()
    };
    let handler = async move || {
        let told = told.clone();
        defer(move |completion: Completion| async move {
            told.send((completion.level(), completion.elapsed()))
                .unwrap();
        });
        tokio::time::sleep(SECOND).await;
        "hello"
    };
    let app: Router = Router::new()
        .route("/", get(handler))
        .layer(DeferLayer::new());

    let request = Request::new(Body::empty());
    let mut response = app.clone().oneshot(request).await.unwrap();
    tokio::time::sleep(3 * SECOND).await;
    response.body_mut().frame().await.unwrap().unwrap();
    tokio::time::sleep(SECOND).await;
    assert_eq!(next().await, (Level::HandedOff, 4 * SECOND));

    let mut io = SentIo::new(tokio::io::sink());
    let service = io.layer().layer(app);
    let response = service.oneshot(Request::new(Body::empty())).await.unwrap();
    let mut body = response.into_body();
    let mut data = body.frame().await.unwrap().unwrap().into_data().unwrap();
    tokio::time::sleep(3 * SECOND).await;
    io.write_all_buf(&mut data).await.unwrap();
    tokio::time::sleep(SECOND).await;
    io.flush().await.unwrap();
    tokio::time::sleep(SECOND).await;
    assert_eq!(next().await, (Level::Flushed, 5 * SECOND));
}

#[derive(Clone, Default)]
struct Skipped(Arc<Mutex<Option<Completion>>>);

impl DeferObserver for Skipped {
    fn skipped(&self, _: &CallbackInfo<'_>, completion: &Completion) {
        *self.0.lock().unwrap() = Some(completion.clone());
    }
}

#[tokio::test]
async fn skip_has_its_completion() {
    let skipped = Skipped::default();
    let layer = DeferLayer::new().observer(skipped.clone());
    let app: Router = Router::new()
        .route(
            "/",
            get(|| async {
                defer(async { unreachable!() });
                (axum::http::StatusCode::IM_A_TEAPOT, "tea")
            }),
        )
        .layer(layer.clone());
    get_root(app).await;
    layer.handle().wait_idle().await;
    let completion = skipped.0.lock().unwrap().clone().unwrap();
    assert_eq!(completion.status().unwrap(), 418);
    assert!(!completion.is_success());
    assert_eq!(completion.delivery(), Delivery::Complete);
    assert_eq!(completion.body_bytes(), 3);
}

#[derive(Clone, Default)]
struct Panics(Arc<AtomicUsize>);

impl Panics {
    fn panic(&self, event: &str) {
        self.0.fetch_add(1, SeqCst);
        panic!("the observer, of {event}");
    }
}

impl DeferObserver for Panics {
    fn registered(&self, _: &CallbackInfo<'_>) {
        self.panic("registered");
    }
    fn replaced(&self, _: &CallbackInfo<'_>) {
        self.panic("replaced");
    }
    fn started(&self, _: &CallbackInfo<'_>, _: Duration) {
        self.panic("started");
    }
    fn finished(&self, _: &CallbackInfo<'_>, _: &Finished<'_>) {
        self.panic("finished");
    }
    fn skipped(&self, _: &CallbackInfo<'_>, _: &Completion) {
        self.panic("skipped");
    }
    fn cancelled(&self, _: &CallbackInfo<'_>) {
        self.panic("cancelled");
    }
    fn lost(&self, _: &CallbackInfo<'_>, _: LostReason) {
        self.panic("lost");
    }
}

#[tokio::test]
async fn panicking_observer_affects_no_other() {
    let (before, after, panics) = (Events::default(), Events::default(), Panics::default());
    let layer = DeferLayer::new()
        .observer(before.clone())
        .observer(panics.clone())
        .observer(after.clone());
    let ran = Arc::new(AtomicUsize::new(0));
    layer
        .scope(async {
            for name in ["a", "b", "c"] {
                let ran = ran.clone();
                defer(async move {
                    let _ = ran.fetch_add(1, SeqCst);
                })
                .name(name);
            }
            defer(async {}).name("skipped").when(|_| false);
            defer(async {}).name("cancelled").cancel();
            defer(async {}).name("replaced");
            defer(async {}).name("replaced");
        })
        .await;
    let scope = layer.scope(async { drop(defer(pending::<()>()).name("lost")) });
    let mut scope = Box::pin(scope);
    assert!(futures_util::poll!(&mut scope).is_pending());
    drop(scope);

    assert_eq!(ran.load(SeqCst), 3);
    assert_eq!(before.all(), after.all());
    assert_eq!(panics.0.load(SeqCst), before.all().len());
    for event in [
        "registered",
        "replaced",
        "started",
        "finished",
        "skipped",
        "cancelled",
        "lost",
    ] {
        assert!(!before.starting_with(event).is_empty(), "{event}");
    }
    assert_eq!((layer.handle().pending(), layer.handle().running()), (0, 0));
}

#[tokio::test]
async fn clones_of_a_layer_keep_observers() {
    let (shared, own) = (Events::default(), Events::default());
    let layer = DeferLayer::new().observer(shared.clone());
    let clone = layer.clone().observer(own.clone());
    layer
        .scope(async { drop(defer(async {}).name("layer")) })
        .await;
    clone
        .scope(async { drop(defer(async {}).name("clone")) })
        .await;
    assert_eq!(
        shared.starting_with("finished"),
        ["finished layer ok", "finished clone ok"]
    );
    assert_eq!(own.starting_with("finished"), ["finished clone ok"]);
}

#[test]
fn callbacks_of_ended_runtime_are_lost() {
    let (layer, events) = observed();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let late = runtime.block_on(async {
        let app: Router = Router::new()
            .route(
                "/",
                get(|| async {
                    defer(pending::<()>()).name("running");
                    defer(async {}).name("waiting");
                }),
            )
            .layer(layer.clone());
        get_root(app).await;
        while events.of("running").len() < 2 {
            tokio::task::yield_now().await;
        }
        layer
            .scope(async { Ok::<_, Infallible>(DeferredCallbackCollection::current().unwrap()) })
            .await
            .unwrap()
    });
    assert_eq!((layer.handle().running(), layer.handle().pending()), (1, 1));
    drop(runtime);
    assert_eq!(
        events.of("running"),
        ["registered", "started", "lost Interrupted"]
    );
    assert_eq!(events.of("waiting"), ["registered", "lost NoRuntime"]);
    late.defer(async {}).name("after the end");
    assert_eq!(events.of("after the end"), ["registered", "lost NoRuntime"]);
    assert_eq!((layer.handle().running(), layer.handle().pending()), (0, 0));
}

#[test]
fn unstarted_blocking_callback_is_lost() {
    let (layer, events) = observed();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .max_blocking_threads(1)
        .build()
        .unwrap();
    let (free, occupied) = mpsc::channel::<()>();
    runtime.block_on(async {
        tokio::task::spawn_blocking(move || occupied.recv());
        tokio::spawn(layer.scope(async {
            defer_blocking(|| {}).name("blocking");
            defer(async {}).name("waiting");
        }));
        while layer.handle().running() == 0 {
            tokio::task::yield_now().await;
        }
    });
    runtime.shutdown_background();
    free.send(()).unwrap();
    // The shutdown goes on in the threads of the runtime, where it tells of what was lost.
    let start = std::time::Instant::now();
    while events.of("waiting").len() < 2 || layer.handle().pending() + layer.handle().running() > 0
    {
        assert!(
            start.elapsed() < 60 * SECOND,
            "it hangs: {:?}",
            events.all()
        );
        std::thread::yield_now();
    }
    let told = events.of("blocking");
    assert_eq!(told[..2], ["registered", "started"]);
    assert!(told[2].starts_with("lost "), "{told:?}");
    assert_eq!(told.len(), 3);
    // The runtime may have had the time to run the other one, after it gave up the first.
    let told = events.of("waiting");
    let ran = told == ["registered", "started", "finished ok"];
    assert!(ran || told == ["registered", "lost NoRuntime"], "{told:?}");
}

#[tokio::test]
async fn dropped_scope_loses_running_callback() {
    let (layer, events) = observed();
    let mut scope = Box::pin(layer.scope(async {
        defer(pending::<()>()).name("running");
        defer(async {}).name("next");
    }));
    assert!(futures_util::poll!(&mut scope).is_pending());
    drop(scope);
    layer.handle().wait_idle().await;
    assert_eq!(
        events.of("running"),
        ["registered", "started", "lost Interrupted"]
    );
    assert_eq!(events.of("next"), ["registered", "started", "finished ok"]);
}

/// Gives a start the chance to overtake the registration while it is told.
#[derive(Clone)]
struct SlowToRegister {
    events: Events,
    gate: Arc<tokio::sync::Semaphore>,
    started: Arc<(Mutex<bool>, std::sync::Condvar)>,
}

impl DeferObserver for SlowToRegister {
    fn registered(&self, callback: &CallbackInfo<'_>) {
        if callback.name() == Some("late") {
            self.gate.add_permits(1);
            let (started, changed) = &*self.started;
            // The start never comes, and the end of this wait is not what is tested.
            let started = changed.wait_timeout_while(
                started.lock().unwrap(),
                Duration::from_millis(50),
                |started| !*started,
            );
            drop(started.unwrap());
        }
        self.events.registered(callback);
    }

    fn started(&self, callback: &CallbackInfo<'_>, waited: Duration) {
        self.events.started(callback, waited);
        if callback.name() == Some("late") {
            let (started, changed) = &*self.started;
            *started.lock().unwrap() = true;
            changed.notify_all();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn registration_is_reported_first() {
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let observer = SlowToRegister {
        events: Events::default(),
        gate: gate.clone(),
        started: Arc::default(),
    };
    let layer = DeferLayer::new().observer(observer.clone());
    let collection = layer
        .scope(async { Ok::<_, Infallible>(DeferredCallbackCollection::current().unwrap()) })
        .await
        .unwrap();
    collection.defer(async move { gate.acquire().await.unwrap().forget() });
    // Its turn comes while this thread tells of its registration.
    drop(collection.defer(async {}).name("late"));
    layer.handle().wait_idle().await;
    assert_eq!(observer.events.of("late")[..2], ["registered", "started"]);
}

#[tokio::test]
async fn observer_may_cancel_a_callback() {
    struct Withdraws;
    impl DeferObserver for Withdraws {
        fn registered(&self, callback: &CallbackInfo<'_>) {
            let current = DeferredCallbackCollection::current();
            if let (Some(current), Some(name)) = (current, callback.name()) {
                assert_eq!(current.forget(name), usize::from(name == "unwanted"));
            }
        }
    }
    let events = Events::default();
    let layer = DeferLayer::new()
        .observer(Withdraws)
        .observer(events.clone());
    let scope = layer.scope(async {
        let kept = DeferredCallbackCollection::current().unwrap();
        defer(async {}).name("unwanted");
        assert!(kept.is_empty());
    });
    tokio::time::timeout(60 * SECOND, scope).await.unwrap();
    let mut told = events.of("unwanted");
    told.sort();
    assert_eq!(told, ["cancelled", "registered"]);
}

/// "Nothing in the layer puts them in line": each waits in its observer for the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn observers_of_two_scopes_run_at_once() {
    struct Meets(
        Mutex<mpsc::Sender<()>>,
        Mutex<Option<mpsc::Receiver<()>>>,
        Arc<AtomicUsize>,
    );
    impl DeferObserver for Meets {
        fn finished(&self, _: &CallbackInfo<'_>, _: &Finished<'_>) {
            let other = self.1.lock().unwrap().take();
            match other {
                Some(other) => other.recv_timeout(60 * SECOND).unwrap(),
                None => self.0.lock().unwrap().send(()).unwrap(),
            }
            self.2.fetch_add(1, SeqCst);
        }
    }
    let (sender, receiver) = mpsc::channel();
    let met = Arc::new(AtomicUsize::new(0));
    let meets = Meets(Mutex::new(sender), Mutex::new(Some(receiver)), met.clone());
    let layer = DeferLayer::new().observer(meets);
    let unit = || tokio::spawn(layer.scope(async { drop(defer(async {})) }));
    let (one, other) = (unit(), unit());
    one.await.unwrap();
    other.await.unwrap();
    assert_eq!(met.load(SeqCst), 2);
}

#[tokio::test]
async fn events_have_start_head_and_completion() {
    struct Log(mpsc::Sender<String>);
    impl DeferObserver for Log {
        fn registered(&self, callback: &CallbackInfo<'_>) {
            assert!(callback.scope_info().map(ScopeInfo::started_at).is_some());
            let scope = callback.scope_info().map(ScopeInfo::id);
            assert_eq!(scope, Some(callback.scope()));
            let _ = self.0.send(format!(
                "registered {:?}",
                callback.scope_info().and_then(ScopeInfo::time_to_head)
            ));
        }
        fn completed(&self, scope: &ScopeInfo, completion: &Completion) {
            let answered = scope.time_to_head().unwrap();
            assert!(answered <= completion.elapsed());
            assert!(scope.started_at() + completion.elapsed() <= std::time::Instant::now());
            let request = scope.request().unwrap();
            let bytes = completion.body_bytes();
            let _ = self.0.send(format!("decided {request} {bytes}"));
        }
        fn started(&self, callback: &CallbackInfo<'_>, _: Duration) {
            assert!(
                callback
                    .scope_info()
                    .and_then(ScopeInfo::time_to_head)
                    .is_some()
            );
            let _ = self.0.send("started".to_owned());
        }
    }
    let (sender, events) = mpsc::channel();
    let layer = DeferLayer::new().observer(Log(sender));
    let handle = layer.handle();
    let handler = async || {
        defer(async {});
        "hello"
    };
    let app = Router::new()
        .route("/a", get(handler))
        .route("/nothing", get(async || "hello"))
        .layer(layer);
    for path in ["/nothing", "/a"] {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = app.clone().oneshot(request).await.unwrap();
        response.into_body().collect().await.unwrap();
    }
    handle.wait_idle().await;
    let events: Vec<_> = events.try_iter().collect();
    assert_eq!(events, ["registered None", "decided GET /a 5", "started"]);
}

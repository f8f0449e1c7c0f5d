//! Request data in callbacks: what `DeferLayer::wrap` carries over, and what is carried by hand.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    future::pending,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use axum::{
    Extension, Router,
    body::Body,
    extract::Request,
    middleware::{self, Next},
    routing::get,
};
use axum_defer::{
    CallbackFuture, CallbackResult, Completion, DeferLayer, DeferredCallbackCollection, Delivery,
    defer, defer_blocking,
};
use http_body_util::BodyExt;
use tower::ServiceExt;
use tracing::Instrument;

use crate::support::{events::Events, subscriber::listen};

tokio::task_local! {
    static TENANT: String;
}

fn tenant() -> Option<String> {
    TENANT.try_with(String::clone).ok()
}

/// Carries the tenant of the request into its callbacks.
async fn with_tenant(callback: CallbackFuture, tenant: Option<String>) -> CallbackResult {
    match tenant {
        Some(tenant) => TENANT.scope(tenant, callback).await,
        None => callback.await,
    }
}

fn carrying() -> DeferLayer {
    DeferLayer::new().wrap(|callback| with_tenant(callback, tenant()))
}

type Sight = (&'static str, Option<String>);

/// What callbacks saw, by their names.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<Sight>>>);

impl Seen {
    fn add(&self, callback: &'static str, seen: Option<String>) {
        self.0.lock().unwrap().push((callback, seen));
    }

    fn all(&self) -> Vec<(&'static str, Option<String>)> {
        self.0.lock().unwrap().clone()
    }
}

/// An app whose handler defers one callback of each kind.
fn app(layer: DeferLayer, seen: &Seen) -> Router {
    let seen = seen.clone();
    let handler = move |deferred: DeferredCallbackCollection| async move {
        let note = move |name| {
            let seen = seen.clone();
            move || seen.add(name, tenant())
        };
        let now = note("future");
        defer(async move { now() });
        let now = note("closure");
        defer(move || async move { now() });
        let now = note("closure of completion");
        defer(move |completion: Completion| async move {
            assert_eq!(
                (
                    completion.status().unwrap().as_u16(),
                    completion.body_bytes()
                ),
                (200, 5)
            );
            now();
        });
        let now = note("result");
        deferred.defer(async move {
            now();
            Ok::<_, std::io::Error>(())
        });
        let (now, inner) = (note("outer"), note("nested"));
        defer(async move {
            now();
            tokio::task::yield_now().await;
            defer(async move { inner() });
        });
        let now = note("blocking");
        defer_blocking(now);
        let now = note("of a task");
        tokio::spawn(async move { drop(deferred.defer(async move { now() })) })
            .await
            .unwrap();
        "hello"
    };
    Router::new()
        .route("/", get(handler))
        .layer(layer)
        .layer(middleware::from_fn(|request: Request, next: Next| {
            TENANT.scope("acme".to_owned(), next.run(request))
        }))
}

async fn get_root(app: Router) {
    let response = app.oneshot(Request::new(Body::empty())).await.unwrap();
    response.into_body().collect().await.unwrap();
}

#[tokio::test]
async fn a_task_local_reaches_no_callback_by_itself() {
    let seen = Seen::default();
    let layer = DeferLayer::new();
    let handle = layer.handle();
    get_root(app(layer, &seen)).await;
    handle.wait_idle().await;
    assert_eq!(seen.all().len(), 8);
    assert!(seen.all().iter().all(|(_, tenant)| tenant.is_none()));
}

#[tokio::test]
async fn wrap_carries_it_into_callbacks_of_every_kind_but_onto_no_other_thread() {
    for concurrent in [false, true] {
        let seen = Seen::default();
        let layer = if concurrent {
            carrying().concurrent()
        } else {
            carrying()
        };
        let handle = layer.handle();
        get_root(app(layer, &seen)).await;
        handle.wait_idle().await;
        let mut all = seen.all();
        all.sort();
        let acme = || Some("acme".to_owned());
        assert_eq!(
            all,
            [
                // The thread of the blocking pool, which `wrap` can't be around.
                ("blocking", None),
                ("closure", acme()),
                ("closure of completion", acme()),
                ("future", acme()),
                ("nested", acme()),
                // `wrap` looked around where `defer` was called: in a task without a tenant.
                ("of a task", None),
                ("outer", acme()),
                ("result", acme()),
            ]
        );
    }
}

#[tokio::test]
async fn a_blocking_callback_gets_what_it_needs_by_capture() {
    let seen = Seen::default();
    let layer = carrying();
    let noted = seen.clone();
    let scope = layer.scope(async {
        let captured = tenant();
        defer_blocking(move |completion: Completion| {
            assert_eq!(completion.delivery(), Delivery::Complete);
            noted.add("blocking", captured);
        });
    });
    TENANT.scope("acme".to_owned(), scope).await;
    assert_eq!(seen.all(), [("blocking", Some("acme".to_owned()))]);
}

#[tokio::test]
async fn extensions_and_the_path_of_the_request_are_carried_by_hand() {
    #[derive(Clone)]
    struct User(&'static str);
    let seen = Arc::new(Mutex::new(None));
    let noted = seen.clone();
    let layer = DeferLayer::new();
    let handle = layer.handle();
    let app: Router = Router::new()
        .route(
            "/orders/{id}",
            get(
                |Extension(user): Extension<User>, request: Request| async move {
                    let path = request.uri().path().to_owned();
                    defer(async move { *noted.lock().unwrap() = Some((user.0, path)) });
                },
            ),
        )
        .layer(layer)
        .layer(Extension(User("ada")));
    let request = Request::get("/orders/7").body(Body::empty()).unwrap();
    app.oneshot(request)
        .await
        .unwrap()
        .into_body()
        .collect()
        .await
        .unwrap();
    handle.wait_idle().await;
    assert_eq!(*seen.lock().unwrap(), Some(("ada", "/orders/7".to_owned())));
}

#[tokio::test]
async fn wrap_carries_a_span() {
    use tracing_subscriber::layer::SubscriberExt;

    let _guard =
        listen(tracing_subscriber::registry().with(tracing_subscriber::filter::LevelFilter::INFO));
    let layer = DeferLayer::new().wrap(|callback| callback.in_current_span());
    let seen = Seen::default();
    let (in_future, on_thread) = (seen.clone(), seen.clone());
    let name = || {
        tracing::Span::current()
            .metadata()
            .map(|span| span.name().to_owned())
    };
    let dispatch = tracing::dispatcher::get_default(Clone::clone);
    let handle = layer.handle();
    let app: Router = Router::new()
        .route(
            "/",
            get(move || async move {
                defer(async move { in_future.add("future", name()) });
                defer_blocking(move || {
                    tracing::dispatcher::with_default(&dispatch, || {
                        on_thread.add("blocking", name());
                    });
                });
            }),
        )
        .layer(layer)
        .layer(middleware::from_fn(|request: Request, next: Next| {
            next.run(request).instrument(tracing::info_span!("request"))
        }));
    get_root(app).await;
    handle.wait_idle().await;
    let request = || Some("request".to_owned());
    assert_eq!(seen.all(), [("future", request()), ("blocking", request())]);
}

#[tokio::test(start_paused = true)]
async fn time_outs_errors_panics_and_rules_are_as_without_wrap() {
    let events = Events::default();
    let layer = carrying()
        .timeout(Duration::from_secs(5))
        .observer(events.clone());
    layer
        .scope(async {
            defer(async {}).name("ok");
            defer(async { Err::<(), _>("no luck") }).name("error");
            defer_blocking(|| Err::<(), _>("no luck")).name("blocking error");
            defer(async { panic!("of the callback") }).name("panic");
            defer_blocking(|| panic!("of the callback")).name("blocking panic");
            defer(pending::<()>()).name("stuck");
            defer(|_: Completion| async { panic!("of the closure") }).name("closure");
            defer(async {}).name("skipped").when(|_| false);
            defer(async {}).name("cancelled").cancel();
            defer(async {}).name("last");
        })
        .await;
    for (name, last) in [
        ("ok", "finished ok"),
        ("error", "finished error: no luck"),
        ("blocking error", "finished error: no luck"),
        ("panic", "finished panicked: of the callback"),
        ("blocking panic", "finished panicked: of the callback"),
        ("stuck", "finished timed out after 5s"),
        ("closure", "finished panicked: of the closure"),
        ("skipped", "skipped Complete"),
        ("cancelled", "cancelled"),
        ("last", "finished ok"),
    ] {
        assert_eq!(events.of(name).last().unwrap(), last, "{name}");
    }
}

#[tokio::test]
async fn a_panic_in_the_wrapping_future_is_the_callbacks() {
    let events = Events::default();
    let layer = DeferLayer::new()
        .wrap(|callback| async {
            let end = callback.await;
            if tenant().is_none() {
                panic!("of the wrapping future");
            }
            end
        })
        .observer(events.clone());
    layer
        .scope(async {
            defer(async {}).name("first");
            defer(async {}).name("second");
        })
        .await;
    for name in ["first", "second"] {
        assert_eq!(
            events.of(name).last().unwrap(),
            "finished panicked: of the wrapping future"
        );
    }
}

#[tokio::test]
async fn a_panic_in_wrap_itself_is_one_of_defer_and_registers_nothing() {
    let events = Events::default();
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = calls.clone();
    let layer = DeferLayer::new()
        .wrap(move |callback| {
            assert_ne!(counted.fetch_add(1, SeqCst), 1, "the second call");
            callback
        })
        .observer(events.clone());
    layer
        .scope(async {
            defer(async {}).name("first");
            let second = || drop(defer(async {}).name("second"));
            let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(second));
            assert!(panic.is_err());
            defer(async {}).name("third");
        })
        .await;
    assert_eq!(
        events.starting_with("registered"),
        ["registered first", "registered third"]
    );
    assert_eq!(
        events.starting_with("finished"),
        ["finished first ok", "finished third ok"]
    );
    assert_eq!((layer.handle().pending(), layer.handle().running()), (0, 0));
}

#[tokio::test]
async fn a_wrapping_future_may_hold_something_for_as_long_as_the_callback_runs() {
    let connections = Arc::new(tokio::sync::Semaphore::new(1));
    let shared = connections.clone();
    let layer = DeferLayer::new().concurrent().wrap(move |callback| {
        let connections = shared.clone();
        async move {
            let _connection = connections.acquire().await.unwrap();
            callback.await
        }
    });
    let at_once = Arc::new(AtomicUsize::new(0));
    let most = Arc::new(AtomicUsize::new(0));
    layer
        .scope(async {
            for _ in 0..10 {
                let (at_once, most) = (at_once.clone(), most.clone());
                defer(async move {
                    most.fetch_max(at_once.fetch_add(1, SeqCst) + 1, SeqCst);
                    tokio::task::yield_now().await;
                    at_once.fetch_sub(1, SeqCst);
                });
            }
        })
        .await;
    assert_eq!(most.load(SeqCst), 1);
    assert_eq!(connections.available_permits(), 1);
}

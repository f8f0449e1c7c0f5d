//! `before_response`: what a response waits for, and what becomes of it when that fails.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::VecDeque,
    convert::Infallible,
    future::{Future, pending},
    sync::{Arc, Mutex},
    task::{Context, Waker},
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::Request,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use axum_defer::{
    BeforeResponseError, BeforeResponseFailed, Completion, DeferLayer, DeferredCallbackCollection,
    Delivery::Pending, Phase, before_response, before_response_blocking, defer, scope,
    try_before_response,
};
use futures_util::FutureExt;
use http_body_util::BodyExt;
use proptest::prelude::*;
use tower::{Service, ServiceExt, service_fn};

use crate::support::{
    self, Server,
    events::observed,
    gate::Gate,
    in_time,
    planned_panics::{PLANNED, silence_planned_panics},
};

/// What happened, in order.
#[derive(Clone, Default)]
struct Steps(Arc<Mutex<Vec<String>>>);

impl Steps {
    fn note(&self, step: impl Into<String>) {
        self.0.lock().unwrap().push(step.into());
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }

    /// A callback that notes that it ran.
    fn on_run(&self, step: &'static str) -> impl Future<Output = ()> + Send + use<> {
        let steps = self.clone();
        async move { steps.note(step) }
    }
}

/// The whole response of a handler behind the layer, when its callbacks have run.
async fn respond<F>(layer: &DeferLayer, handler: impl Fn() -> F) -> (http::response::Parts, String)
where
    F: Future<Output = Response> + Send + 'static,
{
    let service = service_fn(|_: Request| {
        let answer = handler();
        async { Ok::<_, Infallible>(answer.await) }
    });
    let response = layer.layer(service).oneshot(support::get("/")).await;
    let (parts, body) = response.unwrap().into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    in_time(layer.handle().wait_idle()).await;
    (parts, String::from_utf8(body.to_vec()).unwrap())
}

fn told(steps: &Steps, step: &'static str) -> impl Fn(Completion) + Send + use<> {
    let steps = steps.clone();
    move |completion: Completion| {
        let delivery = completion.delivery();
        let status = completion.status().map(|status| status.as_u16());
        let success = completion.is_success();
        steps.note(format!("{step} {status:?} {success} {delivery:?}"));
    }
}

/// Notes what the deferred callbacks are told, whatever happened.
fn tells_the_end(steps: &Steps) {
    let note = told(steps, "end");
    defer(move |completion: Completion| async move { note(completion) }).always();
}

#[tokio::test]
async fn before_response_runs_before_deferred() {
    for layer in [DeferLayer::new(), DeferLayer::new().run_to_completion()] {
        let steps = Steps::default();
        let in_handler = steps.clone();
        let service = service_fn(move |_: Request| {
            let steps = in_handler.clone();
            async move {
                defer(steps.on_run("deferred"));
                let one = told(&steps, "first");
                before_response(move |completion: Completion| async move {
                    one(completion);
                    tokio::task::yield_now().await;
                });
                let blocking = steps.clone();
                before_response_blocking(move || blocking.note("blocking"));
                before_response(async { Ok::<_, Infallible>(()) });
                before_response(steps.on_run("last"));
                steps.note("handler");
                Ok::<_, Infallible>(Response::new(Body::from("hello")))
            }
        });
        let response = layer.layer(service).oneshot(support::get("/")).await;
        let expected = [
            "handler",
            "first Some(200) true Pending",
            "blocking",
            "last",
        ];
        assert_eq!(steps.take(), expected, "and nothing else so far");
        let body = response.unwrap().into_body().collect().await.unwrap();
        assert_eq!(body.to_bytes(), "hello");
        in_time(layer.handle().wait_idle()).await;
        assert_eq!(steps.take(), ["deferred"]);
    }
}

#[tokio::test]
async fn rules_names_and_handles_apply() {
    let (layer, events) = observed();
    let layer = layer.when(|completion| completion.is_complete());
    let (parts, _) = respond(&layer, || async {
        let current = DeferredCallbackCollection::current().unwrap();
        before_response(async {}).name("success");
        before_response(async {}).name("always").always();
        before_response(async {})
            .name("rule")
            .when(|completion| completion.delivery() == Pending && completion.body_bytes() == 0);
        before_response(async {}).name("twice");
        before_response(async {}).name("twice").always();
        before_response(async {})
            .name("cancelled")
            .always()
            .cancel();
        before_response(async {}).name("forgotten").always();
        defer(async {}).name("forgotten").always();
        assert!(current.contains("forgotten"));
        assert_eq!(current.forget("forgotten"), 2, "one of each phase");
        assert_eq!(current.names(), ["success", "always", "rule", "twice"]);
        assert_eq!(current.len(), 4);
        StatusCode::NOT_FOUND.into_response()
    })
    .await;
    assert_eq!(parts.status, 404);
    assert!(events.of("success").contains(&"skipped Pending".to_owned()));
    for name in ["always", "rule"] {
        let told = events.of(name);
        assert_eq!(told, ["registered", "started", "finished ok"], "{name}");
    }
    assert_eq!(
        events.of("twice"),
        [
            "registered",
            "replaced",
            "registered",
            "started",
            "finished ok"
        ]
    );
    assert_eq!(events.of("cancelled"), ["registered", "cancelled"]);
}

/// The rule in the docs of `DeferLayer::when`.
fn only_if_complete(layer: DeferLayer) -> DeferLayer {
    layer.when(|completion| completion.is_success() && completion.is_complete())
}

/// Registers a commit and a callback after the response, both without a rule of their own.
fn commits(fails: bool) {
    let commit = async move { if fails { Err("no luck") } else { Ok(()) } };
    before_response(commit).name("commit");
    defer(async {}).name("mail");
}

#[tokio::test]
async fn layer_rule_does_not_apply_before_response() {
    for (fails, status, commit, mail) in [
        (false, 200, "finished ok", "finished ok"),
        (true, 503, "finished error: no luck", "skipped Complete"),
    ] {
        for to_completion in [false, true] {
            let (layer, events) = observed();
            let mut layer = only_if_complete(layer);
            if to_completion {
                layer = layer.run_to_completion();
            }
            let (parts, _) = respond(&layer, || async move {
                commits(fails);
                "hello".into_response()
            })
            .await;
            assert_eq!(parts.status, status);
            assert_eq!(events.of("commit"), ["registered", "started", commit]);
            assert_eq!(events.of("mail").pop().unwrap(), mail);
        }
    }
}

#[tokio::test]
async fn layer_rule_does_not_apply_before_output() {
    for (fails, commit, mail) in [
        (false, "finished ok", "finished ok"),
        (true, "finished error: no luck", "skipped Complete"),
    ] {
        let (layer, events) = observed();
        only_if_complete(layer)
            .scope(async move { commits(fails) })
            .await;
        assert_eq!(events.of("commit"), ["registered", "started", commit]);
        assert_eq!(events.of("mail").pop().unwrap(), mail);
    }
}

fn plan_a_failure(steps: &Steps, failure: &'static str) {
    before_response(steps.on_run("first"));
    match failure {
        "error" => drop(before_response(async { Err("no luck") }).name("commit")),
        "panic" => drop(before_response(async { panic!("no luck") }).name("commit")),
        "slow" => {
            let limit = Duration::from_secs(5);
            drop(
                before_response(pending::<()>())
                    .name("commit")
                    .timeout(limit),
            );
        }
        "predicate" => {
            let handle = before_response(async {}).name("commit");
            drop(handle.when(|_| panic!("no luck")));
        }
        other => unreachable!("{other}"),
    }
    before_response(steps.on_run("never"))
        .name("never")
        .always();
    defer(steps.on_run("deferred")).name("deferred");
    tells_the_end(steps);
}

#[tokio::test(start_paused = true)]
async fn first_failure_becomes_503() {
    let failures = [
        ("error", "error: no luck"),
        ("panic", "panicked: no luck"),
        ("slow", "timed out after 5s"),
        ("predicate", "panicked: no luck"),
    ];
    for (failure, message) in failures {
        for to_completion in [false, true] {
            let (mut layer, events) = observed();
            if to_completion {
                layer = layer.run_to_completion();
            }
            let steps = Steps::default();
            let (parts, body) = respond(&layer, || {
                let steps = steps.clone();
                async move {
                    plan_a_failure(&steps, failure);
                    ([("x-secret", "of the handler")], "hello").into_response()
                }
            })
            .await;
            assert_eq!(
                (parts.status.as_u16(), body.as_str()),
                (503, ""),
                "{failure}"
            );
            assert!(parts.headers.is_empty(), "{:?}", parts.headers);
            let failed = parts.extensions.get::<BeforeResponseFailed>().unwrap();
            assert_eq!((failed.name(), failed.message()), (Some("commit"), message));
            assert_eq!(failed.location().file(), file!());
            assert!(
                failed
                    .to_string()
                    .starts_with("before the response, commit (")
            );
            assert_eq!(steps.take(), ["first", "end Some(503) false Complete"]);
            assert!(events.of("never").contains(&"skipped Pending".to_owned()));
            assert!(
                events
                    .of("deferred")
                    .contains(&"skipped Complete".to_owned())
            );
        }
    }
}

#[tokio::test]
async fn failure_status_is_configurable() {
    let layer = DeferLayer::new().before_response_failure_status(StatusCode::BAD_GATEWAY);
    let page = |response: Response| {
        let failed = response.extensions().get::<BeforeResponseFailed>();
        let page = failed.map(|failed| format!("sorry: {}", failed.message()));
        match page {
            Some(page) => (response.status(), page).into_response(),
            None => response,
        }
    };
    let handler = || async {
        before_response(async { Err("no luck") });
        "hello"
    };
    let app: Router = Router::new()
        .route("/", get(handler))
        .layer(layer)
        .layer(tower::util::MapResponseLayer::new(page));
    let server = Server::start(app).await;
    for version in [1, 2] {
        let response = if version == 1 {
            let mut client = server.http1().await;
            in_time(client.send_request(support::get("/"))).await
        } else {
            let mut client = server.http2().await;
            in_time(client.send_request(support::get("/"))).await
        };
        let (parts, body) = response.unwrap().into_parts();
        assert_eq!(parts.status, 502);
        let body = body.collect().await.unwrap().to_bytes();
        assert_eq!(body, "sorry: error: no luck");
    }
}

#[tokio::test]
async fn empty_503_keeps_the_connection() {
    let handler = || async {
        before_response(async { Err("no luck") });
        "hello"
    };
    let app: Router = Router::new()
        .route("/", get(handler))
        .route("/well", get(|| async { "well" }))
        .layer(DeferLayer::new());
    let server = Server::start(app).await;
    let mut client = server.http1().await;
    for method in ["GET", "HEAD"] {
        let request = support::request(method, "/");
        let response = in_time(client.send_request(request)).await.unwrap();
        assert_eq!(response.status(), 503);
        if method == "GET" {
            assert_eq!(response.headers()[header::CONTENT_LENGTH], "0");
        }
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert!(body.is_empty());
    }
    client.ready().await.unwrap();
    let response = in_time(client.send_request(support::get("/well"))).await;
    let body = response.unwrap().into_body().collect().await.unwrap();
    assert_eq!(body.to_bytes(), "well");
}

#[tokio::test]
async fn grpc_failure_is_unavailable() {
    let steps = Steps::default();
    let layer = DeferLayer::new_for_grpc();
    let (parts, body) = respond(&layer, || {
        let steps = steps.clone();
        async move {
            before_response(async { Err("no luck") });
            tells_the_end(&steps);
            "a message".into_response()
        }
    })
    .await;
    assert_eq!((parts.status.as_u16(), body.as_str()), (200, ""));
    assert_eq!(parts.headers["grpc-status"], "14");
    assert_eq!(parts.headers[header::CONTENT_TYPE], "application/grpc");
    assert_eq!(steps.take(), ["end Some(200) false Complete"]);
}

#[tokio::test]
async fn nested_before_response_joins_the_run() {
    let steps = Steps::default();
    respond(&DeferLayer::new(), || {
        let steps = steps.clone();
        async move {
            let nested = steps.clone();
            before_response(async move {
                nested.note("outer");
                before_response(nested.on_run("inner"));
                defer(nested.on_run("deferred"));
            });
            before_response(steps.on_run("second"));
            "hello".into_response()
        }
    })
    .await;
    assert_eq!(steps.take(), ["outer", "second", "inner", "deferred"]);
}

#[tokio::test]
async fn late_try_before_response_is_an_error() {
    assert_eq!(
        try_before_response(async {}).unwrap_err(),
        BeforeResponseError::NoScope
    );
    let kept = Arc::new(Mutex::new(None));
    let refused = Arc::new(Mutex::new(None));
    respond(&DeferLayer::new(), || {
        let (kept, refused) = (kept.clone(), refused.clone());
        async move {
            *kept.lock().unwrap() = DeferredCallbackCollection::current();
            defer(async move {
                *refused.lock().unwrap() = try_before_response(async {}).err();
            });
            "hello".into_response()
        }
    })
    .await;
    assert_eq!(
        *refused.lock().unwrap(),
        Some(BeforeResponseError::Released)
    );
    let kept = kept.lock().unwrap().take().unwrap();
    assert_eq!(
        kept.try_before_response(async {}).unwrap_err(),
        BeforeResponseError::Released
    );
    assert!(kept.is_empty());
    let late = std::panic::AssertUnwindSafe(|| kept.before_response(async {}));
    let panic = std::panic::catch_unwind(late).unwrap_err();
    let message = panic.downcast_ref::<String>().unwrap();
    assert!(message.contains("too late for `before_response`"));
    let panic = std::panic::catch_unwind(|| before_response(async {})).unwrap_err();
    assert!(
        panic
            .downcast_ref::<String>()
            .unwrap()
            .contains("DeferLayer")
    );
}

#[test]
fn late_before_response_panics_at_caller() {
    silence_planned_panics();
    let places = Arc::new(Mutex::new(Vec::new()));
    let noted = places.clone();
    let others = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        let text = info.payload().downcast_ref::<String>();
        if text.is_some_and(|text| text.contains("too late for `before_response`")) {
            let place = info.location().unwrap();
            noted.lock().unwrap().push(place.file().to_owned());
        } else {
            others(info);
        }
    }));
    let late = async {
        defer(async { drop(before_response(async {})) });
        defer(async { drop(before_response_blocking(|| {})) });
        defer(async {
            let current = DeferredCallbackCollection::current().unwrap();
            current.before_response(async {});
        });
    };
    assert!(scope(late).now_or_never().is_some());
    let places = places.lock().unwrap();
    assert!(places.len() >= 3, "{places:?}");
    assert!(places.iter().all(|file| file == file!()), "{places:?}");
}

/// A request whose handler has something wait at a gate before the response.
fn waits_at(gate: &Gate, steps: &Steps, fails: bool) -> Router {
    let (gate, steps) = (gate.clone(), steps.clone());
    Router::new().route(
        "/",
        get(async move || {
            let (in_callback, gate) = (steps.clone(), gate.clone());
            before_response(async move {
                gate.pass().await;
                in_callback.note("before");
                if fails { Err("no luck") } else { Ok(()) }
            });
            defer(steps.on_run("deferred"));
            tells_the_end(&steps);
            "hello"
        }),
    )
}

#[tokio::test]
async fn lost_client_does_not_interrupt_run() {
    let cases = [(false, false), (false, true), (true, false), (true, true)];
    for (fails, to_completion) in cases {
        let steps = Steps::default();
        let mut layer = DeferLayer::new();
        if to_completion {
            layer = layer.run_to_completion();
        }
        let (gate, mut arrivals) = Gate::new();
        let server = Server::start(waits_at(&gate, &steps, fails).layer(layer.clone())).await;
        let mut client = server.http1().await;
        let request = tokio::spawn(async move { client.send_request(support::get("/")).await });
        in_time(arrivals.recv()).await.unwrap();
        request.abort();
        let _ = request.await;
        // Until the server has noticed: it drops what it drives.
        for _ in 0..1_000 {
            tokio::task::yield_now().await;
        }
        gate.open();
        in_time(layer.handle().wait_idle()).await;
        let told = steps.take();
        let expected: &[&str] = match fails {
            false => &["before", "deferred", "end Some(200) true Aborted"],
            true => &["before", "end Some(503) false Aborted"],
        };
        assert_eq!(told, expected, "to completion: {to_completion}");
    }
}

#[tokio::test]
async fn drain_waits_for_before_response() {
    let steps = Steps::default();
    let layer = DeferLayer::new();
    let (gate, mut arrivals) = Gate::new();
    let app = waits_at(&gate, &steps, false).layer(layer.clone());
    let request = tokio::spawn(app.oneshot(support::get::<Body>("/")));
    in_time(arrivals.recv()).await.unwrap();
    request.abort();
    let handle = layer.handle();
    let mut idle = Box::pin(handle.wait_idle());
    assert!(
        idle.as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
            .is_pending()
    );
    let report = handle.drain(Duration::ZERO).await;
    assert_eq!(report.unfinished.len(), 3, "{report}");
    gate.open();
    in_time(idle).await;
}

#[tokio::test]
async fn without_response_only_always_runs() {
    for end in ["error", "panic", "drop"] {
        let steps = Steps::default();
        let layer = DeferLayer::new();
        let in_handler = steps.clone();
        let mut service = layer.layer(service_fn(move |_: Request| {
            let steps = in_handler.clone();
            async move {
                before_response(steps.on_run("only on success"));
                let note = told(&steps, "always");
                before_response(move |completion: Completion| async move { note(completion) })
                    .always();
                tells_the_end(&steps);
                match end {
                    "error" => Err("the service failed"),
                    "panic" => panic!("on purpose"),
                    _ => pending::<Result<Response, &'static str>>().await,
                }
            }
        }));
        let mut response = Box::pin(service.call(support::get("/")));
        let polled = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            response
                .as_mut()
                .poll(&mut Context::from_waker(Waker::noop()))
                .map(|_| ())
        }));
        assert_eq!(polled.is_err(), end == "panic");
        drop(response);
        in_time(layer.handle().wait_idle()).await;
        let expected = ["always None false NoResponse", "end None false NoResponse"];
        assert_eq!(steps.take(), expected, "{end}");
    }
}

#[tokio::test]
async fn failure_in_scope_fails_the_scope() {
    for fails in [false, true] {
        let steps = Steps::default();
        let in_unit = steps.clone();
        let output = scope(
            async move {
                let note = told(&in_unit, "before");
                before_response(move |completion: Completion| async move {
                    note(completion);
                    if fails { Err("no luck") } else { Ok(()) }
                });
                defer(in_unit.on_run("deferred"));
                tells_the_end(&in_unit);
                42
            }
            .map_ok(),
        )
        .await;
        assert_eq!(output, Ok(42));
        let expected: &[&str] = match fails {
            false => &[
                "before None true Pending",
                "deferred",
                "end None true Complete",
            ],
            true => &["before None true Pending", "end None false Complete"],
        };
        assert_eq!(steps.take(), expected);
    }
}

/// A unit of work whose output says that it succeeded.
trait MapOk: Future + Sized {
    async fn map_ok(self) -> Result<Self::Output, Infallible> {
        Ok(self.await)
    }
}

impl<F: Future> MapOk for F {}

#[tokio::test]
async fn dropped_scope_continues_on_a_task() {
    let (layer, events) = observed();
    let mut unit = Box::pin(layer.scope(async {
        before_response(pending::<()>()).name("running").always();
        before_response(async {}).name("next").always();
        defer(async {}).name("deferred").always();
    }));
    let polled = unit.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    assert!(polled.is_pending());
    drop(unit);
    in_time(layer.handle().wait_idle()).await;
    let last = |name: &str| events.of(name).pop().unwrap();
    assert!(last("running").starts_with("lost"), "{}", last("running"));
    // The first failure ends the phase.
    assert!(last("next").starts_with("skipped"), "{}", last("next"));
    assert_eq!(last("deferred"), "finished ok");
}

#[tokio::test]
async fn dropped_scope_makes_the_unit_a_failure() {
    let (layer, events) = observed();
    let steps = Steps::default();
    let in_unit = steps.clone();
    let mut unit = Box::pin(layer.scope(async move {
        before_response(pending::<()>()).name("commit");
        defer(async {}).name("mail");
        tells_the_end(&in_unit);
    }));
    assert!(futures_util::poll!(&mut unit).is_pending());
    drop(unit);
    in_time(layer.handle().wait_idle()).await;
    let commit = events.of("commit").pop().unwrap();
    assert_eq!(commit, "lost Interrupted");
    assert_eq!(events.of("mail").pop().unwrap(), "skipped Complete");
    assert_eq!(steps.take(), ["end None false Complete"]);
}

fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().unwrap()
}

/// The runtime of the commit ends, and the server's does not.
#[test]
fn ended_runtime_makes_the_response_a_503() {
    for spawns_elsewhere in [false, true] {
        let (own, other) = (runtime(), runtime());
        let (mut layer, events) = observed();
        if spawns_elsewhere {
            // The first task is that of the commit, and the next one that of the deferred callbacks.
            let runtimes = Mutex::new(vec![other.handle().clone(), own.handle().clone()]);
            layer = layer.spawn_with(move |task| {
                let runtime = runtimes.lock().unwrap().pop().unwrap();
                runtime.spawn(task);
            });
        }
        let steps = Steps::default();
        let in_handler = steps.clone();
        let mut service = layer.layer(service_fn(move |_: Request| {
            before_response(pending::<()>()).name("commit");
            defer(async {}).name("mail");
            tells_the_end(&in_handler);
            std::future::ready(Ok::<_, Infallible>(Response::new(Body::from("hello"))))
        }));
        let mut response = {
            let _entered = own.enter();
            Box::pin(service.call(support::get("/")))
        };
        let polled = own.block_on(async { futures_util::poll!(&mut response) });
        assert!(polled.is_pending());
        own.block_on(async {
            while layer.handle().running() == 0 {
                tokio::task::yield_now().await;
            }
        });
        drop(own);

        let response = other.block_on(in_time(response)).unwrap();

        assert_eq!(response.status(), 503);
        let failed = response.extensions().get::<BeforeResponseFailed>().unwrap();
        assert_eq!(failed.name(), Some("commit"));
        assert!(failed.message().starts_with("lost"), "{failed}");
        drop(response);
        other.block_on(in_time(layer.handle().wait_idle()));
        assert_eq!(events.of("commit").pop().unwrap(), "lost Interrupted");
        let mail = events.of("mail").pop().unwrap();
        if spawns_elsewhere {
            assert_eq!(mail, "skipped Complete");
            assert_eq!(steps.take(), ["end Some(503) false Complete"]);
        } else {
            // Their runtime has ended, too.
            assert_eq!(mail, "lost NoRuntime");
            assert_eq!(steps.take(), [""; 0]);
        }
    }
}

#[test]
fn ended_runtime_loses_both_phases_once() {
    let (layer, events) = observed();
    let runtime = runtime();
    runtime.block_on(async {
        let service = service_fn(|_: Request| async {
            before_response(pending::<()>()).name("running");
            before_response(async {}).name("waiting");
            defer(async {}).name("deferred").always();
            Ok::<_, Infallible>(Response::new(Body::empty()))
        });
        tokio::spawn(layer.layer(service).oneshot(support::get("/")));
        while layer.handle().running() == 0 {
            tokio::task::yield_now().await;
        }
    });
    drop(runtime);
    for name in ["running", "waiting", "deferred"] {
        let told = events.of(name);
        let ends = told.iter().filter(|event| event.starts_with("lost"));
        assert_eq!(ends.count(), 1, "{name}: {told:?}");
    }
    assert_eq!((layer.handle().pending(), layer.handle().running()), (0, 0));
}

#[tokio::test]
async fn deferred_waits_for_phase_and_flush() {
    let steps = Steps::default();
    let layer = DeferLayer::new();
    let (gate, mut arrivals) = Gate::new();
    let app = waits_at(&gate, &steps, false).layer(layer.clone());
    let (listener, address) = support::listen().await;
    let server = tokio::spawn(axum_defer::serve(listener, app).into_future());
    let mut client = support::http2(address).await;
    let request = tokio::spawn(async move { client.send_request(support::get("/")).await });
    in_time(arrivals.recv()).await.unwrap();
    assert_eq!(steps.take(), [""; 0]);
    gate.open();
    let response = in_time(request).await.unwrap().unwrap();
    let body = response.into_body().collect().await.unwrap();
    assert_eq!(body.to_bytes(), "hello");
    in_time(layer.handle().wait_idle()).await;
    let expected = ["before", "deferred", "end Some(200) true Complete"];
    assert_eq!(steps.take(), expected);
    server.abort();
}

#[tokio::test]
async fn observers_see_the_phase() {
    #[derive(Clone, Default)]
    struct Phases(Arc<Mutex<Vec<(String, Phase)>>>);
    impl axum_defer::DeferObserver for Phases {
        fn finished(&self, callback: &axum_defer::CallbackInfo<'_>, _: &axum_defer::Finished<'_>) {
            let name = callback.name().unwrap().to_owned();
            self.0.lock().unwrap().push((name, callback.phase()));
        }
    }
    let phases = Phases::default();
    let layer = DeferLayer::new().observer(phases.clone());
    respond(&layer, || async {
        defer(async {}).name("mail");
        before_response(async {}).name("commit");
        "hello".into_response()
    })
    .await;
    let told = phases.0.lock().unwrap().clone();
    let expected = [("commit", Phase::Before), ("mail", Phase::After)];
    assert_eq!(told, expected.map(|(name, phase)| (name.to_owned(), phase)));
}

#[cfg(feature = "testing")]
#[tokio::test]
async fn inline_runs_both_phases_first() {
    for fails in [false, true] {
        let steps = Steps::default();
        let (layer, _) = observed();
        let layer = layer.inline();
        let in_handler = steps.clone();
        let service = service_fn(move |_: Request| {
            let steps = in_handler.clone();
            async move {
                let in_callback = steps.clone();
                before_response(async move {
                    in_callback.note("before");
                    if fails { Err("no luck") } else { Ok(()) }
                });
                tells_the_end(&steps);
                Ok::<_, Infallible>(Response::new(Body::from("hello")))
            }
        });
        let response = layer.layer(service).oneshot(support::get("/")).await;
        let status = response.unwrap().status();
        let (expected, end) = match fails {
            false => (200, "end Some(200) true Complete"),
            true => (503, "end Some(503) false Complete"),
        };
        assert_eq!(status, expected);
        assert_eq!(steps.take(), ["before", end]);
    }
}

/// What one callback of a generated case does.
#[derive(Clone, Copy, Debug)]
struct Step {
    end: End,
    always: bool,
    /// Registers another one, which does the same.
    nests: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    Ok,
    Error,
    Panic,
    Cancelled,
}

fn step() -> impl Strategy<Value = Step> {
    let end = prop_oneof![
        6 => Just(End::Ok),
        1 => Just(End::Error),
        1 => Just(End::Panic),
        1 => Just(End::Cancelled),
    ];
    (end, any::<bool>(), any::<bool>()).prop_map(|(end, always, nests)| Step { end, always, nests })
}

fn register(steps: &Steps, number: String, step: Step) {
    let (in_callback, name) = (steps.clone(), number.clone());
    let handle = before_response(async move {
        in_callback.note(name.clone());
        if step.nests {
            let nested = Step {
                nests: false,
                ..step
            };
            register(&in_callback, format!("{name}+"), nested);
        }
        tokio::task::yield_now().await;
        match step.end {
            End::Panic => panic!("{PLANNED}"),
            End::Error => Err(PLANNED),
            End::Ok | End::Cancelled => Ok(()),
        }
    })
    .name(number);
    if step.always {
        drop(handle.always());
    } else if step.end == End::Cancelled {
        handle.cancel();
    }
}

/// The names of those that run, in order, and whether one has failed.
fn reference(plan: &[Step], success: bool) -> (Vec<String>, bool) {
    let numbered = plan.iter().enumerate();
    let mut queue: VecDeque<_> = numbered
        .map(|(number, step)| (number.to_string(), *step))
        .filter(|(_, step)| step.always || step.end != End::Cancelled)
        .collect();
    let mut ran = Vec::new();
    while let Some((name, step)) = queue.pop_front() {
        if !success && !step.always {
            continue;
        }
        ran.push(name.clone());
        if step.nests && (step.always || step.end != End::Cancelled) {
            queue.push_back((
                format!("{name}+"),
                Step {
                    nests: false,
                    ..step
                },
            ));
        }
        if matches!(step.end, End::Error | End::Panic) {
            return (ran, true);
        }
    }
    (ran, false)
}

proptest! {
    #[test]
    fn any_plan_runs_like_the_reference(
        plan in prop::collection::vec(step(), 0..8),
        success in any::<bool>(),
        to_completion in any::<bool>(),
    ) {
        silence_planned_panics();
        let runtime = runtime();
        let (status, told, events) = runtime.block_on(async {
            let (mut layer, events) = observed();
            if to_completion {
                layer = layer.run_to_completion();
            }
            let steps = Steps::default();
            let (parts, _) = respond(&layer, || {
                let (steps, plan) = (steps.clone(), plan.clone());
                async move {
                    for (number, step) in plan.into_iter().enumerate() {
                        register(&steps, number.to_string(), step);
                    }
                    tells_the_end(&steps);
                    let status = if success { StatusCode::OK } else { StatusCode::CONFLICT };
                    status.into_response()
                }
            })
            .await;
            (parts.status.as_u16(), steps.take(), events)
        });
        let (mut expected, failed) = reference(&plan, success);
        let expected_status = match (failed, success) {
            (true, _) => 503,
            (false, true) => 200,
            (false, false) => 409,
        };
        prop_assert_eq!(status, expected_status);
        let is_success = success && !failed;
        expected.push(format!("end Some({status}) {is_success} Complete"));
        prop_assert_eq!(told, expected);
        // Each that was registered has come to one end.
        let registered = events.starting_with("registered").len();
        let ends = ["finished", "skipped", "cancelled"];
        let ended: usize = ends.iter().map(|end| events.starting_with(end).len()).sum();
        prop_assert_eq!(ended, registered);
    }
}

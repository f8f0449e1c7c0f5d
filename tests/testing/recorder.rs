//! The test kit: callbacks that have run when `oneshot` returns, and a recorder that asserts.
#![cfg(feature = "testing")]

use std::{
    convert::Infallible,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::Request,
    handler::Handler,
    http::{Response, StatusCode},
    middleware::{self, Next},
    routing::get,
};
use axum_defer::{
    Completion, DeferLayer, Delivery, Level, LostReason, defer, defer_blocking,
    testing::{CallbackEvent, Recorder},
};
use http_body_util::{BodyExt, StreamBody};
use tower::{Service, ServiceBuilder, ServiceExt, service_fn};
use tower_http::{catch_panic::CatchPanicLayer, timeout::TimeoutLayer};

/// A layer that runs callbacks inline, with its recorder.
fn inline() -> (DeferLayer, Recorder) {
    let recorder = Recorder::new();
    (
        DeferLayer::new().inline().observer(recorder.clone()),
        recorder,
    )
}

/// A layer that runs callbacks on tasks, as in production, with its recorder.
fn observed() -> (DeferLayer, Recorder) {
    let recorder = Recorder::new();
    (DeferLayer::new().observer(recorder.clone()), recorder)
}

/// One handler behind a layer that runs callbacks inline, with its recorder.
fn inline_app<H, T>(handler: H) -> (Router, Recorder)
where
    H: Handler<T, ()>,
    T: 'static,
{
    let (layer, recorder) = inline();
    let app = Router::new().route("/", get(handler)).layer(layer);
    (app, recorder)
}

fn request() -> Request {
    Request::new(Body::empty())
}

fn false_hope() -> bool {
    false
}

fn defer_two() {
    defer(async {}).name("mail");
    defer(async {}).name("audit").always();
}

async fn defers_two_and_says_hello() -> &'static str {
    defer_two();
    "hello"
}

fn times_out() -> TimeoutLayer {
    TimeoutLayer::with_status_code(StatusCode::REQUEST_TIMEOUT, Duration::from_secs(5))
}

#[tokio::test]
async fn full_body_runs_callbacks_first() {
    let (app, recorder) = inline_app(defers_two_and_says_hello);

    let response = app.oneshot(request()).await.unwrap();

    recorder.assert_succeeded(["mail", "audit"]);
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body, "hello");
    recorder.assert_succeeded(["mail", "audit"]);
}

#[tokio::test]
async fn empty_body_runs_callbacks_first() {
    for status in [
        StatusCode::OK,
        StatusCode::NO_CONTENT,
        StatusCode::NOT_MODIFIED,
    ] {
        let (app, recorder) = inline_app(move || async move {
            defer(async { tokio::task::yield_now().await }).name("mail");
            status
        });

        let response = app.oneshot(request()).await.unwrap();

        assert_eq!(response.status(), status);
        recorder.assert_succeeded(["mail"]);
    }
}

#[tokio::test]
async fn head_request_runs_callbacks_first() {
    let (app, recorder) = inline_app(defers_two_and_says_hello);

    app.oneshot(Request::head("/").body(Body::empty()).unwrap())
        .await
        .unwrap();

    recorder.assert_succeeded(["mail", "audit"]);
}

#[tokio::test]
async fn stream_runs_callbacks_before_reading() {
    let (app, recorder) = inline_app(|| async {
        defer_two();
        Body::from_stream(tokio_stream::iter(["one", "two"].map(Ok::<_, Infallible>)))
    });

    let response = app.oneshot(request()).await.unwrap();

    recorder.assert_succeeded(["mail", "audit"]);
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body, "onetwo");
    recorder.assert_succeeded(["mail", "audit"]);
}

#[tokio::test]
async fn callback_of_read_stream_runs_on_task() {
    let (layer, recorder) = inline();
    let deferred = layer.handle();
    let handler = || async {
        defer(async {}).name("handler");
        let frames = futures_util::stream::once(async {
            defer(async {}).name("stream");
            Ok::<_, Infallible>("hello")
        });
        Body::from_stream(frames)
    };
    let app: Router = Router::new().route("/", get(handler)).layer(layer);

    let response = app.oneshot(request()).await.unwrap();
    recorder.assert_succeeded(["handler"]);
    response.into_body().collect().await.unwrap();
    deferred.wait_idle().await;

    recorder.assert_succeeded(["handler", "stream"]);
}

#[tokio::test]
async fn nested_callbacks_run_inline() {
    let (app, recorder) = inline_app(|| async {
        defer(async {
            defer(async {
                defer(async {}).name("third");
            })
            .name("second");
        })
        .name("first");
        defer_blocking(|| {
            defer(async {}).name("of a thread");
        })
        .name("blocking");
    });

    app.oneshot(request()).await.unwrap();

    recorder.assert_succeeded(["first", "blocking", "second", "of a thread", "third"]);
    recorder.assert_nothing_lost();
}

#[tokio::test]
async fn failed_callback_affects_no_other() {
    let (app, recorder) = inline_app(|| async {
        defer(async { assert!(false_hope(), "out of ink") }).name("panics");
        defer(async { Err::<(), _>("no such mailbox") }).name("errs");
        defer(async {}).name("runs");
        "hello"
    });

    let response = app.oneshot(request()).await.unwrap();

    assert_eq!(response.status(), StatusCode::OK);
    recorder.assert_failed(["panics", "errs"]);
    assert_eq!(recorder.failure("panics").unwrap(), "panicked: out of ink");
    assert_eq!(recorder.failure("errs").unwrap(), "error: no such mailbox");
    assert_eq!(recorder.failure("runs"), None);
    recorder.assert_succeeded(["runs"]);
    recorder.assert_nothing_lost();
}

#[tokio::test]
async fn status_decides_which_callbacks_run() {
    let seen = Arc::new(Mutex::new(None));
    let sees = seen.clone();
    let (app, recorder) = inline_app(move || async move {
        defer_two();
        defer(move |completion: Completion| async move {
            *sees.lock().unwrap() = Some(completion);
        })
        .when(|completion| completion.status() == Some(StatusCode::CONFLICT))
        .name("conflict");
        StatusCode::CONFLICT
    });

    app.oneshot(request()).await.unwrap();

    recorder.assert_succeeded(["audit", "conflict"]);
    recorder.assert_skipped(["mail"]);
    let completion = seen.lock().unwrap().clone().expect("`conflict` ran");
    assert!(!completion.is_success());
    assert_eq!(completion.delivery(), Delivery::Complete);
    assert_eq!(completion.level(), Level::HandedOff);
}

#[tokio::test]
async fn panic_runs_callbacks_first() {
    for to_completion in [false, true] {
        let (layer, recorder) = inline();
        let handler = || async {
            defer_two();
            defer(async { tokio::task::yield_now().await })
                .name("slow")
                .always();
            assert!(false_hope(), "the handler");
        };
        let routes = Router::new().route("/", get(handler));
        let routes: Router = if to_completion {
            routes.layer(layer.run_to_completion())
        } else {
            routes.layer(layer)
        };
        let app = routes.layer(CatchPanicLayer::new());

        let response = app.oneshot(request()).await.unwrap();

        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        recorder.assert_skipped(["mail"]);
        recorder.assert_succeeded(["audit", "slow"]);
        let event = &recorder.events()[3].event;
        assert!(
            matches!(event, CallbackEvent::Skipped(completion) if completion.delivery() == Delivery::NoResponse),
            "{event}"
        );
    }
}

#[tokio::test]
async fn service_error_runs_callbacks_first() {
    let (layer, recorder) = inline();
    let app = ServiceBuilder::new()
        .layer(layer)
        .service(service_fn(|_: Request| async {
            defer_two();
            Err::<Response<Body>, _>("the service")
        }));

    let error = app.oneshot(request()).await.unwrap_err();

    assert_eq!(error, "the service");
    recorder.assert_skipped(["mail"]);
    recorder.assert_succeeded(["audit"]);
}

#[tokio::test(start_paused = true)]
async fn timeout_inside_is_a_response() {
    let (layer, recorder) = inline();
    let handler = || async {
        defer_two();
        std::future::pending::<()>().await;
    };
    let app: Router = Router::new()
        .route("/", get(handler))
        .layer(times_out())
        .layer(layer);

    let response = app.oneshot(request()).await.unwrap();

    assert_eq!(response.status(), StatusCode::REQUEST_TIMEOUT);
    recorder.assert_skipped(["mail"]);
    recorder.assert_succeeded(["audit"]);
}

#[tokio::test(start_paused = true)]
async fn timeout_outside_moves_callbacks_to_task() {
    let (layer, recorder) = inline();
    let deferred = layer.handle();
    let handler = || async {
        defer_two();
        std::future::pending::<()>().await;
    };
    let app: Router = Router::new()
        .route("/", get(handler))
        .layer(layer)
        .layer(times_out());

    app.oneshot(request()).await.unwrap();
    deferred.wait_idle().await;

    recorder.assert_skipped(["mail"]);
    recorder.assert_succeeded(["audit"]);
}

#[tokio::test(start_paused = true)]
async fn timeout_during_inline_run_moves_the_rest() {
    let (layer, recorder) = inline();
    let deferred = layer.handle();
    let handler = || async {
        defer(std::future::pending::<()>()).name("stuck");
        defer(async {}).name("next");
    };
    let app: Router = Router::new()
        .route("/", get(handler))
        .layer(layer)
        .layer(times_out());

    app.oneshot(request()).await.unwrap();
    deferred.wait_idle().await;

    assert_eq!(recorder.lost(), ["stuck"]);
    recorder.assert_succeeded(["next"]);
    let lost = CallbackEvent::Lost(LostReason::Interrupted);
    assert!(
        recorder
            .events()
            .iter()
            .any(|recorded| recorded.event == lost)
    );
}

#[tokio::test(start_paused = true)]
async fn timed_out_callback_ends_alone() {
    let (layer, recorder) = inline();
    let layer = layer.timeout(Duration::from_secs(30));
    let handler = || async {
        defer(std::future::pending::<()>()).name("layer's");
        defer(std::future::pending::<()>())
            .name("own")
            .timeout(Duration::from_secs(2));
        defer(tokio::time::sleep(Duration::from_secs(29))).name("in time");
    };
    let app: Router = Router::new().route("/", get(handler)).layer(layer);

    app.oneshot(request()).await.unwrap();

    recorder.assert_failed(["layer's", "own"]);
    assert_eq!(recorder.failure("layer's").unwrap(), "timed out after 30s");
    assert_eq!(recorder.failure("own").unwrap(), "timed out after 2s");
    recorder.assert_succeeded(["in time"]);
}

#[tokio::test]
async fn limits_hold_inline() {
    let (layer, recorder) = inline();
    let layer = layer.concurrent().max_concurrency(1).max_pending(2);
    let meet = Arc::new(tokio::sync::Barrier::new(2));
    let handler = move || async move {
        // Neither ends unless they run side by side.
        for name in ["left", "right"] {
            let meet = meet.clone();
            defer(async move {
                meet.wait().await;
            })
            .name(name);
        }
    };
    let mut app: Router = Router::new().route("/", get(handler)).layer(layer);

    for _ in 0..3 {
        app.call(request()).await.unwrap();
    }

    assert_eq!(recorder.succeeded().len(), 6);
    recorder.assert_nothing_lost();
}

/// A `Check` of tonic's health service, as a client would send it.
fn health_check(service: &str) -> Request {
    let length = u8::try_from(service.len()).unwrap();
    let mut message = vec![0, 0, 0, 0, length + 2, 0x0a, length];
    message.extend_from_slice(service.as_bytes());
    Request::post("/grpc.health.v1.Health/Check")
        .version(axum::http::Version::HTTP_2)
        .header("content-type", "application/grpc")
        .body(Body::from(message))
        .unwrap()
}

#[tokio::test]
async fn grpc_status_in_headers_decides() {
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter
        .set_service_status("shop", tonic_health::ServingStatus::Serving)
        .await;
    let recorder = Recorder::new();
    let layer = DeferLayer::new_for_grpc()
        .inline()
        .observer(recorder.clone());
    let app = tonic::service::Routes::new(health)
        .into_axum_router()
        .layer(middleware::from_fn(|request, next: Next| {
            defer_two();
            next.run(request)
        }))
        .layer(layer);

    let response = app.clone().oneshot(health_check("shop")).await.unwrap();
    recorder.assert_succeeded(["mail", "audit"]);
    let trailers = response.into_body().collect().await.unwrap();
    assert_eq!(trailers.trailers().unwrap()["grpc-status"], "0");

    recorder.clear();
    let response = app.oneshot(health_check("none")).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["grpc-status"], "5");
    recorder.assert_succeeded(["audit"]);
    recorder.assert_skipped(["mail"]);
}

#[tokio::test]
async fn grpc_status_in_trailers_is_unchanged() {
    let (recorder, failed) = (Recorder::new(), Arc::new(Mutex::new(None)));
    let layer = DeferLayer::new_for_grpc()
        .inline()
        .observer(recorder.clone());
    let sees = failed.clone();
    let app = ServiceBuilder::new()
        .layer(layer)
        .service(service_fn(move |_: Request| {
            let sees = sees.clone();
            async move {
                defer(move |completion: Completion| async move {
                    *sees.lock().unwrap() = Some(completion.is_success());
                })
                .name("sees");
                let mut trailers = axum::http::HeaderMap::new();
                trailers.insert("grpc-status", "13".parse().unwrap());
                let frames = [
                    Ok::<_, Infallible>(http_body::Frame::data(Bytes::from("message"))),
                    Ok(http_body::Frame::trailers(trailers)),
                ];
                Ok::<_, Infallible>(Response::new(StreamBody::new(tokio_stream::iter(frames))))
            }
        }));

    let response = app.oneshot(request()).await.unwrap();

    recorder.assert_succeeded(["sees"]);
    assert_eq!(*failed.lock().unwrap(), Some(true));
    let body = response.into_body().collect().await.unwrap();
    assert_eq!(body.trailers().unwrap()["grpc-status"], "13");
    assert_eq!(body.to_bytes(), "message");
    recorder.assert_succeeded(["sees"]);
}

#[tokio::test]
async fn scope_is_recorded_like_a_request() {
    let (layer, recorder) = observed();

    let output = layer
        .scope(async {
            defer_two();
            Err::<(), _>("no luck")
        })
        .await;

    assert_eq!(output, Err("no luck"));
    recorder.assert_skipped(["mail"]);
    recorder.assert_succeeded(["audit"]);
    let skipped = recorder.events()[2].to_string();
    assert!(
        skipped.starts_with("mail skipped: the unit of work failed ("),
        "{skipped}"
    );
}

#[tokio::test]
async fn recorder_keeps_kind_and_order() {
    let (layer, recorder) = observed();

    layer
        .scope(async {
            defer(async {}).name("once");
            defer(async {}).name("once");
            assert!(defer(async {}).name("cancelled").cancel());
            defer(async {}).name("forgotten");
            let deferred = axum_defer::DeferredCallbackCollection::current().unwrap();
            assert_eq!(deferred.forget("forgotten"), 1);
            defer(async {}).when(|_| false).name("skipped");
            defer(async { Err::<(), _>("no") }).name("failed");
        })
        .await;

    recorder.assert_succeeded(["once"]);
    recorder.assert_replaced(["once"]);
    recorder.assert_cancelled(["cancelled", "forgotten"]);
    recorder.assert_skipped(["skipped"]);
    recorder.assert_failed(["failed"]);
    recorder.assert_nothing_lost();
    assert_eq!(recorder.started(), ["once", "failed"]);
    let told: Vec<_> = recorder
        .events()
        .iter()
        .map(|recorded| format!("{} {}", recorded.callback, recorded.event))
        .collect();
    assert_eq!(
        told,
        [
            "once registered",
            "once replaced",
            "once registered",
            "cancelled registered",
            "cancelled cancelled",
            "forgotten registered",
            "forgotten cancelled",
            "skipped registered",
            "failed registered",
            "once started",
            "once succeeded",
            "skipped skipped: the unit of work succeeded",
            "failed started",
            "failed failed: error: no",
        ]
    );
    assert_eq!(recorder.registered().len(), 6);

    recorder.clear();
    assert_eq!(recorder.events(), []);
    recorder.assert_succeeded([]);
}

#[tokio::test]
async fn unnamed_callback_has_its_location() {
    let (layer, recorder) = observed();
    let line = line!() + 3;
    layer
        .scope(async {
            defer(async {});
        })
        .await;
    assert_eq!(recorder.succeeded(), [format!("{}:{line}", file!())]);
}

/// The message and the place of a panic.
fn panic_of(code: impl FnOnce()) -> String {
    let message = catch_unwind(AssertUnwindSafe(code)).unwrap_err();
    message.downcast_ref::<String>().unwrap().clone()
}

#[tokio::test]
async fn failed_assertion_shows_what_happened() {
    let (layer, recorder) = inline();
    let handler = || async {
        defer_two();
        StatusCode::CONFLICT
    };
    let app: Router = Router::new().route("/", get(handler)).layer(layer.clone());
    app.oneshot(request()).await.unwrap();

    let message = panic_of(|| recorder.assert_succeeded(["mail", "audit"]));
    for part in [
        "callbacks that succeeded\n",
        "   found: [\"audit\"]\n",
        "expected: [\"mail\", \"audit\"]\n",
        "mail skipped: the response was a 409, delivery Complete, 0 bytes",
        "audit succeeded",
    ] {
        assert!(message.contains(part), "no {part:?} in:\n{message}");
    }
    assert!(panic_of(|| recorder.assert_succeeded([])).contains("expected: none\n"));
    panic_of(|| recorder.assert_succeeded(["audit", "audit"]));
    panic_of(|| recorder.assert_skipped([]));
    panic_of(|| recorder.assert_failed(["audit"]));
    panic_of(|| recorder.assert_cancelled(["audit"]));
    panic_of(|| recorder.assert_replaced(["audit"]));

    layer
        .scope(async { drop(defer(async { Err::<(), _>("full") }).name("disk")) })
        .await;
    let message = panic_of(|| recorder.assert_nothing_failed());
    assert!(message.contains("disk failed: error: full"), "{message}");
}

#[tokio::test]
async fn assertion_checks_the_order() {
    let (layer, recorder) = observed();
    layer
        .scope(async {
            defer_two();
        })
        .await;
    recorder.assert_succeeded(["mail", "audit"]);
    panic_of(|| recorder.assert_succeeded(["audit", "mail"]));
}

#[tokio::test]
async fn unused_recorder_says_so() {
    let message = panic_of(|| Recorder::new().assert_succeeded(["mail"]));
    assert!(message.contains("is the recorder an observer"), "{message}");
}

#[tokio::test]
async fn running_callback_is_neither_lost_nor_done() {
    let (layer, recorder) = observed();
    let deferred = layer.handle();
    let app: Router = Router::new()
        .route("/", get(defers_two_and_says_hello))
        .layer(layer);

    let response = app.oneshot(request()).await.unwrap();
    assert_eq!(recorder.unfinished(), ["mail", "audit"]);
    let message = panic_of(|| recorder.assert_nothing_lost());
    assert!(message.contains("wait_idle"), "{message}");

    drop(response);
    deferred.wait_idle().await;
    assert_eq!(recorder.unfinished(), [""; 0]);
    recorder.assert_nothing_lost();
    recorder.assert_nothing_failed();
}

#[tokio::test]
async fn running_callback_is_unfinished() {
    let (layer, recorder) = inline();
    let inside = recorder.clone();
    let unit = layer.scope(async move {
        defer(async move { assert_eq!(inside.unfinished(), ["mail"]) }).name("mail");
    });
    unit.await;
    recorder.assert_nothing_failed();
    assert_eq!(recorder.unfinished(), [""; 0]);
}

#[tokio::test]
async fn app_signature_accepts_any_layer() {
    fn app(layer: DeferLayer) -> Router {
        let handler = || async {
            defer(async {}).name("mail");
            StatusCode::NOT_FOUND
        };
        Router::new().route("/", get(handler)).layer(layer)
    }
    let server_errors = axum_defer::classify::ServerErrorsAsFailures::make_classifier();
    for (layer, ran) in [
        (DeferLayer::new(), 0),
        (DeferLayer::new().run_to_completion(), 0),
        (DeferLayer::new().classifier(server_errors), 1),
        (DeferLayer::new_for_grpc(), 0),
    ] {
        let recorder = Recorder::new();
        let app = app(layer.inline().observer(recorder.clone()));
        assert_eq!(app.oneshot(request()).await.unwrap().status(), 404);
        assert_eq!(recorder.succeeded().len(), ran);
        assert_eq!(recorder.skipped().len(), 1 - ran);
    }
}

#[tokio::test]
async fn inline_body_bytes_are_known() {
    let bytes_of = async |method: &str, body: fn() -> Body| {
        let (sender, bytes) = std::sync::mpsc::channel();
        let (app, _) = inline_app(move || async move {
            defer(move |completion: Completion| async move {
                sender.send(completion.body_bytes()).unwrap();
            });
            Response::new(body())
        });
        let request = axum::http::Request::builder()
            .method(method)
            .body(Body::empty())
            .unwrap();
        app.oneshot(request).await.unwrap();
        bytes.recv().unwrap()
    };
    assert_eq!(bytes_of("GET", || Body::from("nine more")).await, 9);
    assert_eq!(bytes_of("HEAD", || Body::from("nine more")).await, 0);
    assert_eq!(bytes_of("GET", Body::empty).await, 0);
    let stream = || {
        let frames = futures_util::stream::iter([Ok::<_, Infallible>("hello")]);
        Body::from_stream(frames)
    };
    assert_eq!(bytes_of("GET", stream).await, 0);
}

//! The layer inside and outside of others: each row of the table in `docs/layer-order.md` is a case.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use axum::{
    Router,
    body::Body,
    error_handling::HandleErrorLayer,
    extract::Request,
    http::{HeaderName, HeaderValue, StatusCode},
    middleware::{Next, from_fn},
    response::{IntoResponse, Response},
    routing::get,
};
use axum_defer::{
    BeforeResponseFailed, DeferLayer,
    Delivery::{Complete, NoResponse},
    InScope, defer, try_defer,
};
use futures_util::FutureExt;
use http_body::Frame;
use http_body_util::BodyExt;
use tower::{
    BoxError, ServiceBuilder, ServiceExt, limit::ConcurrencyLimitLayer, util::MapResponseLayer,
};
use tower_http::{
    catch_panic::CatchPanicLayer, compression::CompressionLayer, cors::CorsLayer,
    limit::RequestBodyLimitLayer, propagate_header::PropagateHeaderLayer,
    set_header::SetRequestHeaderLayer, timeout::TimeoutLayer, trace::TraceLayer,
};

use crate::support::{
    self, Server,
    beside::{
        Beside,
        Place::{Inside, Outside},
        TEXT, ask, send,
    },
    gate::Gate,
    in_time,
};

#[tokio::test]
async fn a_trace_changes_nothing_and_sees_a_failure_before_the_response_only_from_outside() {
    for (place, expected) in [(Inside, 200), (Outside, 503)] {
        let (sender, mut statuses) = tokio::sync::mpsc::unbounded_channel();
        let trace = TraceLayer::new_for_http().on_response(
            move |response: &Response<_>, _: Duration, _: &tracing::Span| {
                sender.send(response.status().as_u16()).unwrap();
            },
        );
        let mut beside = Beside::new(place, DeferLayer::new(), |app| app.layer(trace));
        let (response, seen) = beside.ask("GET /stream").await;
        assert_eq!(response.status, 200);
        let seen = seen.unwrap();
        assert!(seen.ran);
        assert_eq!(seen.completion.delivery(), Complete);
        assert_eq!(seen.completion.body_bytes(), 10);
        assert_eq!(in_time(statuses.recv()).await, Some(200));

        let (response, _) = beside.ask("GET /order").await;
        assert_eq!(response.status, 503);
        assert_eq!(in_time(statuses.recv()).await, Some(expected), "{place:?}");
    }
}

#[tokio::test]
async fn compression_inside_has_the_bytes_counted_that_are_sent() {
    for path in ["/text", "/stream"] {
        for place in [Inside, Outside] {
            let compression =
                CompressionLayer::new().compress_when(|_: StatusCode, _: _, _: &_, _: &_| true);
            let request = format!("GET {path}\naccept-encoding: gzip");
            let (response, seen) = ask(place, |app| app.layer(compression), &request).await;
            assert_eq!(response.status, 200);
            let is_compressed = response.body.windows(2).any(|pair| pair == [0x1f, 0x8b]);
            assert!(is_compressed, "{path}");
            let seen = seen.unwrap();
            assert!(seen.ran);
            assert_eq!(seen.completion.delivery(), Complete, "{path}");
            let bytes = seen.completion.body_bytes();
            match (place, path) {
                (Inside, "/text") => {
                    let framing = "4a\r\n\r\n0\r\n\r\n".len();
                    assert_eq!(bytes as usize + framing, response.body.len());
                }
                (Inside, _) => assert_ne!(bytes, 10),
                (Outside, "/text") => assert_eq!(bytes, TEXT.len() as u64 * 9),
                (Outside, _) => assert_eq!(bytes, 10),
            }
        }
    }
}

/// Without a socket, on a clock that stands still until the handler waits: or else the time-out
/// outside may be up before anybody has asked the layer inside.
#[tokio::test(start_paused = true)]
async fn a_time_out_inside_is_a_failure_and_outside_it_leaves_no_response() {
    let limit = Duration::from_secs(1);
    for place in [Inside, Outside] {
        let time_out = TimeoutLayer::with_status_code(StatusCode::REQUEST_TIMEOUT, limit);
        let mut beside = Beside::new(place, DeferLayer::new(), |app| app.layer(time_out));
        let response = beside
            .app
            .clone()
            .oneshot(support::get::<Body>("/never"))
            .await;
        let response: Response = response.unwrap();
        assert_eq!(response.status(), StatusCode::REQUEST_TIMEOUT);
        response.into_body().collect().await.unwrap();

        let seen = beside.seen().await.unwrap();
        assert!(!seen.ran);
        let how = (seen.completion.status(), seen.completion.delivery());
        match place {
            Inside => assert_eq!(how, (Some(StatusCode::REQUEST_TIMEOUT), Complete)),
            Outside => assert_eq!(how, (None, NoResponse)),
        }
    }
}

#[tokio::test]
async fn a_panic_that_is_caught_inside_is_a_500_and_outside_there_is_no_response() {
    for place in [Inside, Outside] {
        let catch = |app: Router| app.layer(CatchPanicLayer::new());
        let (response, seen) = ask(place, catch, "GET /panic").await;
        assert_eq!(response.status, 500);
        let seen = seen.unwrap();
        assert!(!seen.ran);
        let how = (seen.completion.status(), seen.completion.delivery());
        match place {
            Inside => assert_eq!(how, (Some(StatusCode::INTERNAL_SERVER_ERROR), Complete)),
            Outside => assert_eq!(how, (None, NoResponse)),
        }
    }
}

#[tokio::test]
async fn cors_outside_keeps_preflights_away() {
    let preflight = "OPTIONS /text\norigin: http://a.test\naccess-control-request-method: GET";
    for (place, comes) in [(Inside, true), (Outside, false)] {
        let cors = |app: Router| app.layer(CorsLayer::permissive());
        let (response, seen) = ask(place, cors, preflight).await;
        assert_eq!(response.status, 200);
        assert_eq!(seen.is_some(), comes, "{place:?}");

        let (response, seen) = ask(place, cors, "GET /text\norigin: http://a.test").await;
        assert!(response.head.contains("access-control-allow-origin: *"));
        assert!(seen.unwrap().ran);
    }
}

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

#[tokio::test]
async fn a_request_id_is_told_if_it_is_set_outside() {
    for place in [Inside, Outside] {
        // What `SetRequestIdLayer` does.
        let id = SetRequestHeaderLayer::overriding(REQUEST_ID, HeaderValue::from_static("seven"));
        let set = |app: Router| app.layer(id);
        let mut beside = Beside::new(place, DeferLayer::new(), set);
        beside.ask("GET /text").await;
        assert_eq!(beside.told().id.is_some(), place == Outside);
    }
}

#[tokio::test]
async fn a_503_of_before_response_has_the_request_id_if_it_is_propagated_outside() {
    for (place, has_id) in [(Inside, false), (Outside, true)] {
        // What `PropagateRequestIdLayer` does.
        let propagate = |app: Router| app.layer(PropagateHeaderLayer::new(REQUEST_ID));
        for (path, status, expected) in [("/text", 200, true), ("/order", 503, has_id)] {
            let request = format!("GET {path}\nx-request-id: seven");
            let (response, _) = ask(place, propagate, &request).await;
            assert_eq!(response.status, status);
            let has_id = response.head.contains("x-request-id: seven");
            assert_eq!(has_id, expected, "{place:?} {path}");
        }
    }
}

#[tokio::test]
async fn a_refusal_by_a_middleware_inside_is_a_failure_and_one_outside_never_comes() {
    async fn authenticate(request: Request, next: Next) -> Response {
        if request.headers().contains_key("authorization") {
            return next.run(request).await;
        }
        StatusCode::UNAUTHORIZED.into_response()
    }
    for place in [Inside, Outside] {
        let auth = |app: Router| app.layer(from_fn(authenticate));
        let (response, seen) = ask(place, auth, "GET /text").await;
        assert_eq!(response.status, 401);
        match place {
            Inside => {
                let seen = seen.unwrap();
                assert!(!seen.ran);
                assert_eq!(seen.completion.status(), Some(StatusCode::UNAUTHORIZED));
            }
            Outside => assert!(seen.is_none()),
        }
        let (response, seen) = ask(place, auth, "GET /text\nauthorization: me").await;
        assert_eq!(response.status, 200);
        assert!(seen.unwrap().ran);
    }
}

#[tokio::test]
async fn handler_on_task_inside_needs_in_current_scope() {
    async fn spawn(request: Request, next: Next) -> Response {
        tokio::spawn(next.run(request)).await.unwrap()
    }
    async fn spawn_in_scope(request: Request, next: Next) -> Response {
        let handler = next.run(request).in_current_scope();
        tokio::spawn(handler).await.unwrap()
    }
    async fn handler() -> &'static str {
        try_defer(async {}).map_or("no scope", |_| "deferred")
    }
    let routes = || Router::new().route("/", get(handler));
    let layer = DeferLayer::new;
    let apps: [(Router, &str); 3] = [
        (routes().layer(from_fn(spawn)).layer(layer()), "no scope"),
        (
            routes().layer(from_fn(spawn_in_scope)).layer(layer()),
            "deferred",
        ),
        (routes().layer(layer()).layer(from_fn(spawn)), "deferred"),
    ];
    for (app, expected) in apps {
        let response = app.oneshot(support::get::<Body>("/")).await.unwrap();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body, expected);
    }
}

#[tokio::test]
async fn a_body_that_is_too_large_is_a_failure_inside_and_never_comes_outside() {
    for place in [Inside, Outside] {
        let limit = |app: Router| app.layer(RequestBodyLimitLayer::new(8));
        let (response, seen) = ask(place, limit, "POST /upload\n\n12345678").await;
        assert_eq!((response.status, &*response.body), (200, &b"8"[..]));
        assert!(seen.unwrap().ran);

        let (response, seen) = ask(place, limit, "POST /upload\n\n123456789").await;
        assert_eq!(response.status, 413);
        match place {
            Inside => assert!(!seen.unwrap().ran),
            // It answers by itself.
            Outside => assert!(seen.is_none()),
        }
    }
}

#[tokio::test]
async fn a_save_that_fails_is_a_failure_only_if_it_is_inside() {
    /// As a session or a transaction, which is saved when the handler has answered.
    async fn save(request: Request, next: Next) -> Response {
        next.run(request).await;
        StatusCode::INTERNAL_SERVER_ERROR.into_response()
    }
    for (place, ran) in [(Inside, false), (Outside, true)] {
        let save = |app: Router| app.layer(from_fn(save));
        let (response, seen) = ask(place, save, "GET /text").await;
        assert_eq!(response.status, 500);
        assert_eq!(seen.unwrap().ran, ran, "{place:?}");
    }
}

#[tokio::test]
async fn an_error_page_outside_is_made_of_failures_before_the_response_too() {
    fn page(response: Response) -> Response {
        match response.extensions().get::<BeforeResponseFailed>() {
            Some(failed) => (response.status(), failed.message().to_owned()).into_response(),
            None => response,
        }
    }
    for (place, expected) in [(Inside, ""), (Outside, "error: the database is gone")] {
        let pages = |app: Router| app.layer(MapResponseLayer::new(page));
        let (response, _) = ask(place, pages, "GET /order").await;
        assert_eq!(response.status, 503);
        let body = String::from_utf8(response.body).unwrap();
        assert_eq!(body, expected, "{place:?}");
    }
}

/// As tonic-web does: trailers become the last piece of the body.
#[tokio::test]
async fn trailers_that_are_translated_inside_are_not_classified() {
    fn translate(response: Response) -> Response {
        response.map(|body| {
            Body::new(body.map_frame(|frame| match frame.into_trailers() {
                Ok(_) => Frame::data("grpc-status: 2".into()),
                Err(frame) => frame,
            }))
        })
    }
    for (place, ran) in [(Inside, true), (Outside, false)] {
        let translate = |app: Router| app.layer(MapResponseLayer::new(translate));
        let mut beside = Beside::new(place, DeferLayer::new_for_grpc(), translate);
        let (response, seen) = beside.ask("GET /call").await;
        assert_eq!(response.status, 200);
        assert_eq!(seen.unwrap().ran, ran, "{place:?}");
    }
}

/// A route whose callback waits for the gate.
fn gated(gate: &Gate) -> Router {
    let gate = gate.clone();
    let handler = async move || {
        defer(gate.clone().pass());
    };
    Router::new().route("/", get(handler))
}

#[tokio::test]
async fn a_callback_holds_no_place_of_a_concurrency_limit() {
    for place in [Inside, Outside] {
        let (gate, mut arrivals) = Gate::new();
        let (limit, layer) = (ConcurrencyLimitLayer::new(1), DeferLayer::new());
        let app = match place {
            Inside => gated(&gate).layer(limit).layer(layer.clone()),
            Outside => gated(&gate).layer(layer.clone()).layer(limit),
        };
        // With its state, or axum would apply the layers anew to each request.
        let server = Server::start(app.with_state(())).await;
        for _ in 0..2 {
            assert_eq!(send(&server, "GET /").await.status, 200);
            in_time(arrivals.recv()).await.unwrap();
        }
        assert_eq!(layer.handle().running(), 2);
        gate.open();
        in_time(layer.handle().wait_idle()).await;
    }
}

#[tokio::test]
async fn load_is_shed_outside_and_waits_inside() {
    let unavailable = || HandleErrorLayer::new(async |_: BoxError| StatusCode::SERVICE_UNAVAILABLE);
    for place in [Inside, Outside] {
        let (gate, mut arrivals) = Gate::new();
        let layer = DeferLayer::new().max_pending(1);
        let app = match place {
            Inside => gated(&gate).layer(
                ServiceBuilder::new()
                    .layer(layer.clone())
                    .layer(unavailable())
                    .load_shed(),
            ),
            Outside => gated(&gate).layer(
                ServiceBuilder::new()
                    .layer(unavailable())
                    .load_shed()
                    .layer(layer.clone()),
            ),
        };
        let get = || app.clone().oneshot(support::get::<Body>("/"));
        let first = get().await.unwrap();
        first.into_body().collect().await.unwrap();
        in_time(arrivals.recv()).await.unwrap();

        let mut second = Box::pin(get());
        match (place, second.as_mut().now_or_never()) {
            (Inside, None) => {
                gate.open();
                assert_eq!(in_time(second).await.unwrap().status(), 200);
            }
            (Outside, Some(response)) => {
                assert_eq!(response.unwrap().status(), 503);
                gate.open();
            }
            (_, other) => panic!("{place:?}: {other:?}"),
        }
        in_time(layer.handle().wait_idle()).await;
    }
}

//! `DeferLayer::wait_until`: when a platform is told of a request, and when the request is over.
#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    convert::Infallible,
    future::{Future, pending},
    pin::Pin,
    sync::{Arc, Mutex, mpsc},
    task::{Context, Waker},
};

use axum::{
    Router,
    body::Body,
    extract::Request,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::get,
};
use axum_defer::{DeferLayer, DeferredCallbackCollection, before_response, defer};
use http_body_util::BodyExt;
use tower::{Service, ServiceExt, service_fn};

use crate::support::{
    self, Server,
    events::observed,
    gate::Gate,
    in_time,
    planned_panics::{PLANNED, silence_planned_panics},
};

type Idle = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A platform that takes what it is told, and looks at it without being woken.
#[derive(Clone, Default)]
struct Platform(Arc<Mutex<Vec<Idle>>>);

impl Platform {
    fn on(layer: DeferLayer) -> (DeferLayer, Self) {
        let platform = Self::default();
        let told = platform.clone();
        let layer = layer.wait_until(move |_, idle| told.0.lock().unwrap().push(idle));
        (layer, platform)
    }

    /// How often it has been told of a request.
    fn told(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    /// Whether its one request is over.
    fn is_idle(&self) -> bool {
        let mut idle = self.0.lock().unwrap();
        let [idle] = &mut idle[..] else {
            panic!("it was told {} times", idle.len());
        };
        let idle = idle.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        idle.is_ready()
    }

    /// Waits until its one request is over.
    async fn idle(&self) {
        assert_eq!(self.told(), 1);
        let idle = self.0.lock().unwrap().pop().unwrap();
        in_time(idle).await;
    }
}

/// The handler's answer, behind the layer.
async fn answer<F>(layer: &DeferLayer, handler: impl FnOnce() -> F + Clone) -> Response
where
    F: Future<Output = Response> + Send + 'static,
{
    let service = service_fn(move |_: Request| {
        let answer = handler.clone()();
        async { Ok::<_, Infallible>(answer.await) }
    });
    let response = layer.layer(service).oneshot(support::get("/")).await;
    response.unwrap().map(Body::new)
}

async fn read(response: Response) {
    response.into_body().collect().await.unwrap();
}

#[tokio::test]
async fn a_platform_is_told_once_of_each_request_and_before_it_has_the_head() {
    let order = Arc::new(Mutex::new(Vec::new()));
    let note = |what: &'static str| {
        let order = order.clone();
        move || order.lock().unwrap().push(what)
    };
    let told = note("told");
    let layer = DeferLayer::new().wait_until(move |_, _| told());
    let (answers, runs) = (note("answers"), note("runs"));
    let handler = move || async move {
        defer(async move { runs() });
        answers();
        "hello".into_response()
    };
    for _ in 0..2 {
        let response = answer(&layer, handler.clone()).await;
        note("head")();
        read(response).await;
        in_time(layer.handle().wait_idle()).await;
    }
    let once = ["answers", "told", "head", "runs"];
    assert_eq!(*order.lock().unwrap(), [once, once].concat());
}

#[tokio::test]
async fn it_is_told_before_a_client_has_the_head_over_a_socket() {
    let (layer, platform) = Platform::on(DeferLayer::new());
    let app = Router::new().route("/", get(|| async { "hello" }));
    for (requests, layer) in [(1, layer.clone()), (2, layer.run_to_completion())] {
        let server = Server::start(app.clone().layer(layer)).await;
        let mut client = server.raw().await;
        client.get("/").await;
        client.response(false).await.unwrap();
        assert_eq!(platform.told(), requests);
    }
}

#[tokio::test]
async fn it_is_told_with_the_extensions_that_the_request_came_with() {
    #[derive(Clone)]
    struct Invocation(u32);

    let (tell, told) = mpsc::channel();
    let layer = DeferLayer::new().wait_until(move |extensions, _| {
        let has_scope = extensions.get::<DeferredCallbackCollection>().is_some();
        let number = extensions.get().map(|Invocation(number)| *number);
        tell.send((number, has_scope)).unwrap();
    });
    let service = service_fn(|mut request: Request| {
        request.extensions_mut().insert(Invocation(0));
        async { Ok::<_, Infallible>(Response::new(Body::empty())) }
    });
    let mut service = layer.layer(service);
    for number in [1, 2] {
        let mut request: Request = support::get("/");
        request.extensions_mut().insert(Invocation(number));
        service.call(request).await.unwrap();
        assert_eq!(told.try_recv(), Ok((Some(number), false)));
    }
}

#[tokio::test]
async fn a_request_that_deferred_nothing_is_over_with_its_response() {
    let (layer, platform) = Platform::on(DeferLayer::new());
    let response = answer(&layer, || async { "hello".into_response() }).await;
    // Its body could still defer something.
    assert!(!platform.is_idle());
    read(response).await;
    assert!(platform.is_idle());
    drop(platform);

    let (layer, platform) = Platform::on(DeferLayer::new());
    let response = answer(&layer, || async { StatusCode::NO_CONTENT.into_response() }).await;
    drop(response);
    assert!(platform.is_idle());
}

#[tokio::test]
async fn a_request_is_over_after_its_last_callback_and_what_that_has_captured() {
    for layer in [DeferLayer::new(), DeferLayer::new().concurrent()] {
        let (layer, platform) = Platform::on(layer);
        let (gate, mut arrivals) = Gate::new();
        let captured = Arc::new(());
        let handler = {
            let (gate, captured) = (gate.clone(), captured.clone());
            move || async move {
                defer(async {});
                defer(async move {
                    // Nested, and registered when no other is left.
                    defer(async move {
                        gate.pass().await;
                        drop(captured);
                    });
                });
                "hello".into_response()
            }
        };
        read(answer(&layer, handler).await).await;
        in_time(arrivals.recv()).await.unwrap();
        assert!(!platform.is_idle());
        gate.open();
        platform.idle().await;
        assert_eq!(Arc::strong_count(&captured), 1);
    }
}

#[tokio::test]
async fn a_collection_that_is_kept_holds_the_request_for_what_comes_late() {
    let (layer, platform) = Platform::on(DeferLayer::new());
    let (keep, kept) = mpsc::channel();
    let handler = move || async move {
        keep.send(DeferredCallbackCollection::current().unwrap())
            .unwrap();
        "hello".into_response()
    };
    read(answer(&layer, handler).await).await;
    let kept = kept.recv().unwrap();
    assert!(!platform.is_idle());
    let (gate, mut arrivals) = Gate::new();
    kept.defer(gate.clone().pass());
    drop(kept);
    in_time(arrivals.recv()).await.unwrap();
    assert!(!platform.is_idle());
    gate.open();
    platform.idle().await;
}

#[tokio::test]
async fn it_is_told_before_a_response_waits_for_anything() {
    let (layer, platform) = Platform::on(DeferLayer::new());
    let (gate, mut arrivals) = Gate::new();
    let handler = {
        let gate = gate.clone();
        move || async move {
            before_response(gate.pass());
            "hello".into_response()
        }
    };
    let layer_of_task = layer.clone();
    let response = tokio::spawn(async move { answer(&layer_of_task, handler).await });
    in_time(arrivals.recv()).await.unwrap();
    assert!(!platform.is_idle());
    gate.open();
    read(in_time(response).await.unwrap()).await;
    platform.idle().await;
}

#[tokio::test]
async fn a_client_that_leaves_while_the_response_waits_leaves_the_platform_waiting() {
    let (layer, platform) = Platform::on(DeferLayer::new());
    let (gate, mut arrivals) = Gate::new();
    let handler = {
        let gate = gate.clone();
        move || async move {
            before_response(gate.pass());
            "hello".into_response()
        }
    };
    let mut response = Box::pin(answer(&layer, handler));
    let mut context = Context::from_waker(Waker::noop());
    assert!(response.as_mut().poll(&mut context).is_pending());
    in_time(arrivals.recv()).await.unwrap();
    drop(response);
    assert!(!platform.is_idle());
    gate.open();
    platform.idle().await;
}

#[tokio::test]
async fn a_handler_that_is_dropped_with_its_client_is_told_of_too() {
    let (layer, platform) = Platform::on(DeferLayer::new());
    let (gate, mut arrivals) = Gate::new();
    let handler = {
        let gate = gate.clone();
        move || async move {
            defer(gate.pass()).always();
            pending().await
        }
    };
    let mut response = Box::pin(answer(&layer, handler));
    let mut context = Context::from_waker(Waker::noop());
    assert!(response.as_mut().poll(&mut context).is_pending());
    assert_eq!(platform.told(), 0);
    drop(response);
    in_time(arrivals.recv()).await.unwrap();
    assert!(!platform.is_idle());
    gate.open();
    platform.idle().await;
}

#[tokio::test]
async fn a_handler_that_is_run_to_completion_is_told_of_when_it_has_answered() {
    let (layer, platform) = Platform::on(DeferLayer::new().run_to_completion());
    let (handler_gate, mut in_handler) = Gate::new();
    let (gate, mut arrivals) = Gate::new();
    let handler = {
        let (handler_gate, gate) = (handler_gate.clone(), gate.clone());
        move || async move {
            defer(gate.pass());
            handler_gate.pass().await;
            "hello".into_response()
        }
    };
    let mut response = Box::pin(answer(&layer, handler));
    let mut context = Context::from_waker(Waker::noop());
    assert!(response.as_mut().poll(&mut context).is_pending());
    in_time(in_handler.recv()).await.unwrap();
    drop(response);
    assert_eq!(platform.told(), 0);
    handler_gate.open();
    in_time(arrivals.recv()).await.unwrap();
    assert!(!platform.is_idle());
    gate.open();
    platform.idle().await;
}

#[tokio::test]
async fn a_handler_that_panics_is_told_of_when_it_does() {
    silence_planned_panics();
    for layer in [DeferLayer::new(), DeferLayer::new().inline()] {
        let (layer, platform) = Platform::on(layer);
        let ran = Arc::new(Mutex::new(false));
        let handler = {
            let ran = ran.clone();
            move || async move {
                defer(async move { *ran.lock().unwrap() = true }).always();
                panic!("{PLANNED}")
            }
        };
        let layer_of_task = layer.clone();
        let answer = tokio::spawn(async move { answer(&layer_of_task, handler).await });
        assert!(answer.await.unwrap_err().is_panic());
        platform.idle().await;
        assert!(*ran.lock().unwrap());
    }
}

#[tokio::test]
async fn a_service_that_fails_is_told_of() {
    let (layer, platform) = Platform::on(DeferLayer::new());
    let service = service_fn(|_: Request| async { Err::<Response, _>("no response") });
    let failed = layer.layer(service).oneshot(support::get("/")).await;
    assert_eq!(failed.unwrap_err(), "no response");
    assert!(platform.is_idle());
}

#[tokio::test]
async fn inline_it_is_told_before_the_callbacks_run() {
    let (layer, platform) = Platform::on(DeferLayer::new().inline());
    let (gate, mut arrivals) = Gate::new();
    let handler = {
        let gate = gate.clone();
        move || async move {
            defer(gate.pass());
            "hello".into_response()
        }
    };
    let layer_of_task = layer.clone();
    let response = tokio::spawn(async move { answer(&layer_of_task, handler).await });
    in_time(arrivals.recv()).await.unwrap();
    assert!(!platform.is_idle());
    gate.open();
    read(in_time(response).await.unwrap()).await;
    platform.idle().await;
}

#[tokio::test]
async fn callbacks_that_are_skipped_or_withdrawn_hold_nothing_up() {
    let (layer, events) = observed();
    let (layer, platform) = Platform::on(layer);
    let handler = || async {
        defer(pending::<()>()).name("skipped");
        defer(pending::<()>()).name("cancelled").cancel();
        StatusCode::NOT_FOUND.into_response()
    };
    read(answer(&layer, handler).await).await;
    platform.idle().await;
    assert_eq!(events.of("skipped"), ["registered", "skipped Complete"]);
    assert_eq!(events.of("cancelled"), ["registered", "cancelled"]);
}

#[test]
fn callbacks_that_are_lost_with_their_runtime_hold_nothing_up() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let (layer, platform) = Platform::on(DeferLayer::new());
    runtime.block_on(async {
        let handler = || async {
            defer(pending::<()>());
            defer(pending::<()>());
            "hello".into_response()
        };
        read(answer(&layer, handler).await).await;
        tokio::task::yield_now().await;
    });
    assert!(!platform.is_idle());
    drop(runtime);
    assert!(platform.is_idle());
}

#[tokio::test]
async fn with_the_accurate_server_a_request_is_over_when_its_response_was_sent_and_its_callbacks_ran()
 {
    let (layer, platform) = Platform::on(DeferLayer::new());
    let (gate, mut arrivals) = Gate::new();
    let handler = {
        let gate = gate.clone();
        move || async move {
            defer(gate.pass());
            "hello"
        }
    };
    let app = Router::new().route("/", get(handler)).layer(layer);
    let (listener, address) = support::listen().await;
    let server = tokio::spawn(axum_defer::serve(listener, app).into_future());
    let mut client = support::RawClient::connect(address).await;
    client.get("/").await;
    client.response(false).await.unwrap();
    in_time(arrivals.recv()).await.unwrap();
    assert!(!platform.is_idle());
    gate.open();
    platform.idle().await;
    server.abort();
}

#[tokio::test]
async fn each_of_two_layers_tells_its_platform_and_a_unit_that_is_no_request_tells_none() {
    let (outer, outer_platform) = Platform::on(DeferLayer::new());
    let (inner, inner_platform) = Platform::on(DeferLayer::new());
    let app = Router::new()
        .route("/", get(|| async { "hello" }))
        .layer(inner.clone())
        .layer(outer);
    read(app.oneshot(support::get::<Body>("/")).await.unwrap()).await;
    assert!(outer_platform.is_idle() && inner_platform.is_idle());
    inner
        .scope(async {
            defer(async {});
        })
        .await;
    assert_eq!(inner_platform.told(), 1);
}

#[tokio::test]
async fn a_panic_in_the_hook_goes_no_further() {
    silence_planned_panics();
    let layer = DeferLayer::new().wait_until(|_, _| panic!("{PLANNED}"));
    let response = answer(&layer, || async { "hello".into_response() }).await;
    assert_eq!(response.status(), StatusCode::OK);
}

#[tokio::test]
async fn nothing_depends_on_the_platform_waiting() {
    let layer = DeferLayer::new().wait_until(|_, idle| drop(idle));
    let (gate, mut arrivals) = Gate::new();
    gate.open();
    let handler = move || async move {
        defer(gate.pass());
        "hello".into_response()
    };
    read(answer(&layer, handler).await).await;
    in_time(arrivals.recv()).await.unwrap();
}

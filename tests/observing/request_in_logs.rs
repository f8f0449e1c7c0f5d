//! The log lines of a callback say which request they belong to, and observers learn it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![cfg(feature = "tracing")]

use std::sync::{Arc, Mutex};

use axum::{Router, body::Body, extract::Request, routing::get};
use axum_defer::{CallbackInfo, DeferLayer, DeferObserver, Finished, defer, defer_blocking};
use http_body_util::BodyExt;
use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider, SpanData};
use tower::ServiceExt;
use tower_http::trace::{DefaultMakeSpan, TraceLayer};
use tracing::{Level, info, info_span};
use tracing_subscriber::layer::SubscriberExt;

use crate::support::{log::Log, subscriber::listen};

async fn show_order() -> &'static str {
    info!("in the handler");
    defer(async { info!("in a callback") }).name("mail");
    // A subscriber of one test is that of one thread.
    let subscriber = tracing::dispatcher::get_default(tracing::Dispatch::clone);
    defer_blocking(move || {
        tracing::dispatcher::with_default(&subscriber, || info!("in a blocking callback"));
    });
    defer(async { Err("no luck") }).name("audit");
    "hello"
}

/// Sends one request through a router whose layers are as one would have them.
async fn request(layer: DeferLayer) {
    let deferred = layer.handle();
    let app: Router = Router::new()
        .route("/orders/{id}", get(show_order))
        .layer(layer)
        .layer(
            TraceLayer::new_for_http().make_span_with(DefaultMakeSpan::new().level(Level::INFO)),
        );
    let request = Request::get("/orders/7?secret=1")
        .header("x-request-id", "abc-123")
        .body(Body::empty())
        .unwrap();
    let response = app.oneshot(request).await.unwrap();
    response.into_body().collect().await.unwrap();
    deferred.wait_idle().await;
}

#[tokio::test]
async fn with_fmt_each_line_of_a_callback_names_its_request() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .with_writer(log.clone())
        .with_ansi(false)
        .without_time()
        .finish();
    let _listening = listen(subscriber);
    request(DeferLayer::new()).await;

    let own = r#"deferred{method="GET" path="/orders/{id}" request_id="abc-123""#;
    let fields = r#"method="GET" path="/orders/{id}" request_id="abc-123""#;
    for line in ["in a callback", "in a blocking callback", "failed"] {
        let line = log.line(line);
        assert!(line.contains(own) && line.contains(fields), "{line}");
        assert!(!line.contains("secret"), "{line}");
        assert!(!line.contains("request{"), "{line}");
    }
    assert!(log.line("in a callback").contains(r#"callback="mail""#));
    assert!(log.line("failed").contains("no luck"));
    assert!(log.line("in the handler").contains("request{"));
}

#[tokio::test]
async fn with_json_the_request_is_in_fields_of_the_span() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .json()
        .with_writer(log.clone())
        .finish();
    let _listening = listen(subscriber);
    request(DeferLayer::new()).await;

    let line = log.line("in a callback");
    for field in [
        r#""method":"GET""#,
        r#""path":"/orders/{id}""#,
        r#""request_id":"abc-123""#,
        r#""name":"deferred""#,
    ] {
        assert!(line.contains(field), "{field} in {line}");
    }
}

fn attribute(span: &SpanData, key: &str) -> Option<String> {
    let found = span
        .attributes
        .iter()
        .find(|attribute| attribute.key.as_str() == key);
    found.map(|attribute| attribute.value.to_string())
}

#[tokio::test]
async fn with_opentelemetry_the_request_is_in_attributes_and_its_span_has_ended() {
    let exporter = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder()
        .with_simple_exporter(exporter.clone())
        .build();
    let telemetry = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
    let _listening = listen(tracing_subscriber::registry().with(telemetry));
    request(DeferLayer::new()).await;
    provider.force_flush().unwrap();

    let spans = exporter.get_finished_spans().unwrap();
    assert_eq!(
        spans[0].name, "request",
        "no callback keeps it open: {spans:?}"
    );
    let deferred: Vec<_> = spans
        .iter()
        .filter(|span| span.name == "deferred")
        .collect();
    assert_eq!(deferred.len(), 3);
    for span in deferred {
        assert_eq!(attribute(span, "method").as_deref(), Some("GET"));
        assert_eq!(attribute(span, "path").as_deref(), Some("/orders/{id}"));
        assert_eq!(attribute(span, "request_id").as_deref(), Some("abc-123"));
        let links = span.links.iter();
        assert!(
            links
                .map(|link| &link.span_context)
                .eq([&spans[0].span_context])
        );
    }
}

#[tokio::test]
async fn a_layer_may_make_another_span() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .with_writer(log.clone())
        .with_ansi(false)
        .finish();
    let _listening = listen(subscriber);
    let layer = DeferLayer::new().span(|callback| {
        assert!(callback.id() > 0 && callback.scope() > 0);
        let route = callback.request().and_then(|request| request.route());
        info_span!(
            parent: None,
            "after",
            route,
            callback = tracing::field::Empty,
        )
    });
    request(layer).await;
    let line = log.line("in a callback");
    assert!(
        line.contains(r#"after{route="/orders/{id}" callback="mail"}"#),
        "{line}"
    );
    assert!(log.line("failed").contains(r#"callback="audit"}"#));
    assert!(log.lines("deferred{").is_empty());
}

#[tokio::test]
async fn span_without_enabled_parent_is_debug() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .with_writer(log.clone())
        .with_ansi(false)
        .finish();
    let _listening = listen(subscriber);
    let unit = || {
        DeferLayer::new().scope(async { drop(defer(async { info!("in a callback") }).name("a")) })
    };
    unit().await;
    assert!(!log.line("in a callback").contains("deferred"));
    log.clear();
    tracing::Instrument::instrument(unit(), info_span!("job")).await;
    let line = log.line("in a callback");
    assert!(line.contains(r#"deferred{callback="a"}"#), "{line}");
}

/// Of each callback that ended: its id and scope, and what is known of its request.
#[derive(Clone, Default)]
struct Requests(Arc<Mutex<Vec<Told>>>);

#[derive(Debug)]
struct Told {
    id: u64,
    scope: u64,
    request: Option<(String, String, Option<String>, Option<String>)>,
}

impl DeferObserver for Requests {
    fn finished(&self, callback: &CallbackInfo<'_>, _: &Finished<'_>) {
        let request = callback.request().map(|request| {
            (
                request.to_string(),
                request.path().to_owned(),
                request.route().map(str::to_owned),
                request.id().map(str::to_owned),
            )
        });
        self.0.lock().unwrap().push(Told {
            id: callback.id(),
            scope: callback.scope(),
            request,
        });
    }
}

#[tokio::test]
async fn observers_learn_the_request_and_numbers_that_tell_callbacks_apart() {
    let requests = Requests::default();
    let layer = DeferLayer::new().observer(requests.clone());
    request(layer.clone()).await;
    request(layer.clone()).await;
    layer.scope(async { drop(defer(async {})) }).await;

    let told = requests.0.lock().unwrap();
    assert_eq!(told.len(), 7);
    let expected = (
        "GET /orders/{id}".to_owned(),
        "/orders/7".to_owned(),
        Some("/orders/{id}".to_owned()),
        Some("abc-123".to_owned()),
    );
    for of_a_request in &told[..6] {
        assert_eq!(of_a_request.request.as_ref(), Some(&expected));
    }
    assert_eq!(told[6].request, None);
    let scopes: Vec<_> = told.iter().map(|told| told.scope).collect();
    assert!(scopes[..3].iter().all(|scope| *scope == scopes[0]));
    assert!(scopes[3..6].iter().all(|scope| *scope == scopes[3]));
    assert!(scopes[0] < scopes[3] && scopes[3] < scopes[6]);
    assert!(told.is_sorted_by(|one, next| one.id < next.id));
}

#[tokio::test]
async fn a_nested_router_knows_the_whole_path() {
    let requests = Requests::default();
    let layer = DeferLayer::new().observer(requests.clone());
    let deferred = layer.handle();
    let inner = Router::new()
        .route("/orders/{id}", get(show_order))
        .layer(layer);
    let app: Router = Router::new().nest("/shop", inner);
    let request = Request::get("/shop/orders/7").body(Body::empty()).unwrap();
    let response = app.oneshot(request).await.unwrap();
    response.into_body().collect().await.unwrap();
    deferred.wait_idle().await;
    let told = requests.0.lock().unwrap();
    let (line, path, route, id) = told[0].request.as_ref().unwrap();
    assert_eq!(line, "GET /shop/orders/{id}");
    assert_eq!((path.as_str(), id), ("/shop/orders/7", &None));
    assert_eq!(route.as_deref(), Some("/shop/orders/{id}"));
}

#[tokio::test]
async fn around_a_router_there_is_a_path_and_no_route() {
    let requests = Requests::default();
    let layer = DeferLayer::new().observer(requests.clone());
    let deferred = layer.handle();
    let router: Router = Router::new().route("/orders/{id}", get(show_order));
    let app = tower::Layer::layer(&layer, router);
    let request = Request::get("/orders/7?a=b").body(Body::empty()).unwrap();
    let response = app.oneshot(request).await.unwrap();
    response.into_body().collect().await.unwrap();
    deferred.wait_idle().await;
    let told = requests.0.lock().unwrap();
    let (line, _, route, _) = told[0].request.as_ref().unwrap();
    assert_eq!((line.as_str(), route), ("GET /orders/7", &None));
}

//! Events about callbacks in logs: fields without a span, one line per event, warnings about skips.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![cfg(feature = "tracing")]

use std::{
    collections::BTreeSet,
    error::Error,
    fmt,
    future::pending,
    sync::{Arc, Mutex},
    time::Duration,
};

use crate::support::{log::Log, planned_panics::silence_panics, subscriber::listen};
use axum::{
    Router,
    body::Body,
    extract::Request,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::get,
};
use axum_defer::{
    BeforeResponseFailed, DeferLayer, DeferredCallbackCollection, before_response, defer,
};
use http_body_util::BodyExt;
use serde_json::Value;
use tower::ServiceExt;
use tracing::{Level, Subscriber, span::Attributes, subscriber::DefaultGuard};
use tracing_subscriber::layer::{Context, SubscriberExt};

/// A format of tracing-subscriber.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Text,
    Json,
    FlatJson,
}

const FORMATS: [Format; 3] = [Format::Text, Format::Json, Format::FlatJson];

impl Format {
    fn listen(self, max_level: Level) -> (Log, DefaultGuard) {
        let log = Log::default();
        let builder = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_max_level(max_level)
            .with_writer(log.clone());
        let guard = match self {
            Self::Text => listen(builder.finish()),
            Self::Json => listen(builder.json().finish()),
            Self::FlatJson => listen(builder.json().flatten_event(true).finish()),
        };
        (log, guard)
    }
}

/// Sends a request to a handler that is at `/orders/{id}`, and waits for its callbacks.
async fn request<F>(layer: &DeferLayer, handler: fn() -> F) -> Response
where
    F: Future<Output: IntoResponse> + Send + 'static,
{
    let app: Router = Router::new()
        .route("/orders/{id}", get(async move || handler().await))
        .layer(layer.clone());
    let request = Request::get("/orders/7").header("x-request-id", "abc-123");
    let request = request.body(Body::empty()).unwrap();
    let (parts, body) = app.oneshot(request).await.unwrap().into_parts();
    body.collect().await.unwrap();
    layer.handle().wait_idle().await;
    Response::from_parts(parts, Body::empty())
}

/// A failed, a lost, and a skipped callback, each of a request of its own.
async fn fail_lose_and_skip() {
    let mail = || async {
        defer(async { Err("no luck") }).name("mail");
    };
    request(&DeferLayer::new(), mail).await;
    request(&DeferLayer::new().spawn_with(drop), mail).await;
    let skipped = || async {
        defer(async {}).name("mail");
        StatusCode::CONFLICT
    };
    request(&DeferLayer::new(), skipped).await;
}

const EVENTS: [(&str, &str); 3] = [
    ("ERROR", "deferred callback failed"),
    ("ERROR", "deferred callback lost"),
    ("WARN", "deferred callback skipped"),
];

#[tokio::test]
async fn event_names_its_request_without_a_span() {
    for format in FORMATS {
        let (log, _listening) = format.listen(Level::WARN);
        fail_lose_and_skip().await;

        assert_eq!(log.text().lines().count(), EVENTS.len(), "{}", log.text());
        for (level, message) in EVENTS {
            let line = log.line(message);
            if format == Format::Text {
                let request = r#"method="GET" path="/orders/{id}" request_id="abc-123""#;
                let expected = format!(r#"callback="mail" {request} location={}:"#, file!());
                assert!(line.contains(&expected), "{line}");
                assert!(
                    line.contains(level) && !line.contains("deferred{"),
                    "{line}"
                );
                continue;
            }
            let line: Value = serde_json::from_str(&line).unwrap();
            let fields = match format {
                Format::FlatJson => &line,
                _ => &line["fields"],
            };
            assert!(fields["message"].as_str().unwrap().starts_with(message));
            assert_eq!(fields["callback"], "mail");
            assert_eq!(fields["method"], "GET");
            assert_eq!(fields["path"], "/orders/{id}");
            assert_eq!(fields["request_id"], "abc-123");
            assert!(fields["location"].as_str().unwrap().starts_with(file!()));
            assert_eq!(line["level"], level);
            assert!(line.get("span").is_none() && line.get("spans").is_none());
        }
    }
}

/// The keys that the JSON formatter of tracing-subscriber writes itself, and those of its spans.
const KEYS_OF_FORMATTER: [&str; 10] = [
    "timestamp",
    "level",
    "fields",
    "target",
    "filename",
    "line_number",
    "span",
    "spans",
    "threadName",
    "threadId",
];

/// Collects the names of all fields.
#[derive(Clone, Default)]
struct FieldNames(Arc<Mutex<BTreeSet<(bool, &'static str)>>>);

impl FieldNames {
    fn add(&self, is_span: bool, metadata: &tracing::Metadata<'static>) {
        let names = metadata
            .fields()
            .iter()
            .map(|field| (is_span, field.name()));
        self.0.lock().unwrap().extend(names);
    }
}

impl<S: Subscriber> tracing_subscriber::Layer<S> for FieldNames {
    fn on_new_span(&self, span: &Attributes<'_>, _: &tracing::span::Id, _: Context<'_, S>) {
        self.add(true, span.metadata());
    }

    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        self.add(false, event.metadata());
    }
}

#[tokio::test]
async fn no_field_has_a_key_of_the_json_formatter() {
    let names = FieldNames::default();
    let _listening = listen(tracing_subscriber::registry().with(names.clone()));
    fail_lose_and_skip().await;
    DeferLayer::new()
        .scope(async {
            defer(async {}).cancel();
            defer(async {}).name("replaced");
            defer(async {}).name("replaced").when(|_| false);
        })
        .await;
    let names = names.0.lock().unwrap();
    assert!(names.contains(&(true, "callback")) && names.contains(&(false, "location")));
    for (is_span, name) in &*names {
        assert!(!KEYS_OF_FORMATTER.contains(name), "{name}");
        assert!(!(*is_span && *name == "name"), "a span has a name already");
    }
}

const BREAKS: &str = "first\nsecond\r\n\u{1b}[31mred\0\u{85}\u{2028}last";

/// An error with line breaks whose source has some, too.
#[derive(Debug)]
struct Broken(Option<Box<Broken>>);

impl fmt::Display for Broken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(BREAKS)
    }
}

impl Error for Broken {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.as_deref().map(|source| source as _)
    }
}

fn broken() -> Result<(), Broken> {
    Err(Broken(Some(Box::new(Broken(None)))))
}

fn silence_broken_panics() {
    silence_panics(|payload| {
        let text = payload.downcast_ref::<String>().map(String::as_str);
        text.or_else(|| payload.downcast_ref::<&str>().copied()) == Some(BREAKS)
    });
}

#[track_caller]
fn assert_one_line(text: &str) {
    let breaks = |character: char| character.is_control() || character == '\u{2028}';
    assert!(!text.contains(breaks), "{text:?}");
    assert!(text.contains("first") && text.contains("last"), "{text:?}");
}

#[tokio::test]
async fn text_with_line_breaks_is_one_line() {
    silence_broken_panics();
    for format in FORMATS {
        let (log, _listening) = format.listen(Level::TRACE);
        DeferLayer::new()
            .scope(async {
                defer(async { broken() }).name("error");
                defer(async { panic!("{BREAKS}") }).name("panic");
                defer(async { broken() }).name(BREAKS);
                defer(async {})
                    .name(format!("{BREAKS} skipped"))
                    .when(|_| false);
                defer(async {}).name(format!("{BREAKS} cancelled")).cancel();
            })
            .await;

        let text = log.text();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 5, "{text}");
        for line in lines {
            if format == Format::Text {
                assert_one_line(line);
                continue;
            }
            let event: Value = serde_json::from_str(line).unwrap();
            let fields = event.get("fields").unwrap_or(&event);
            if let Some(outcome) = fields.get("outcome") {
                assert_one_line(outcome.as_str().unwrap());
            }
        }
    }
}

#[tokio::test]
async fn report_with_line_breaks_is_one_line() {
    let layer = DeferLayer::new();
    let deferred = layer.handle();
    let mut unit = Box::pin(layer.scope(async {
        defer(pending::<()>()).name(BREAKS);
        defer(async {}).name(format!("{BREAKS} again"));
    }));
    assert!(futures_util::poll!(&mut unit).is_pending());
    for callback in deferred.snapshot() {
        assert_one_line(&callback.to_string());
    }
    let report = deferred.drain(Duration::ZERO).await.to_string();
    assert!(report.contains("2 unfinished"), "{report}");
    assert_one_line(&report);
}

#[tokio::test]
async fn failed_commit_with_line_breaks_is_one_line() {
    silence_broken_panics();
    for panics in [false, true] {
        let handler = match panics {
            false => || -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>> {
                Box::pin(async { drop(before_response(async { broken() }).name(BREAKS)) })
            },
            true => || -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>> {
                Box::pin(async { drop(before_response(async { panic!("{BREAKS}") })) })
            },
        };
        let response = request(&DeferLayer::new(), handler).await;
        assert_eq!(response.status(), 503);
        let failed = response.extensions().get::<BeforeResponseFailed>().unwrap();
        assert_one_line(failed.message());
        assert_one_line(&failed.to_string());
    }
}

/// Skips twice at each of two call sites, and returns the levels of the events.
async fn levels_of_skips(layers: [DeferLayer; 2]) -> Vec<String> {
    let (log, _listening) = Format::Json.listen(Level::DEBUG);
    for layer in layers {
        let handler = || async {
            defer(async {}).name("one");
            defer(async {}).name("two");
            // A rule of its own is a decision.
            defer(async {})
                .name("rule")
                .when(|completion| completion.is_success());
            StatusCode::CONFLICT
        };
        request(&layer, handler).await;
    }
    let lines = log.lines("deferred callback skipped");
    let events = lines.iter().map(|line| {
        let event: Value = serde_json::from_str(line).unwrap();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        format!(
            "{} {}",
            text(&event["fields"]["callback"]),
            text(&event["level"])
        )
    });
    events.collect()
}

const WARNED: [&str; 3] = ["one WARN", "two WARN", "rule DEBUG"];
const QUIET: [&str; 3] = ["one DEBUG", "two DEBUG", "rule DEBUG"];

#[tokio::test]
async fn first_skip_of_a_call_site_is_a_warning() {
    let layer = DeferLayer::new();
    let levels = levels_of_skips([layer.clone(), layer.clone()]).await;
    assert_eq!(levels, [WARNED, QUIET].concat());
    // The layers of two apps warn independently.
    let levels = levels_of_skips([DeferLayer::new(), DeferLayer::new()]).await;
    assert_eq!(levels, [WARNED, WARNED].concat());
}

#[tokio::test]
async fn warnings_about_skips_can_be_disabled() {
    let layer = DeferLayer::new().warn_on_skip(false);
    let levels = levels_of_skips([layer.clone(), layer.clone()]).await;
    assert_eq!(levels, [QUIET, QUIET].concat());
    let layer = layer.warn_on_skip(true);
    let levels = levels_of_skips([layer.clone(), layer]).await;
    assert_eq!(levels, [WARNED, QUIET].concat());
}

#[tokio::test]
async fn skip_of_a_kept_collection_names_its_request() {
    let (log, _listening) = Format::Text.listen(Level::WARN);
    let layer = DeferLayer::new();
    let (sender, receiver) = std::sync::mpsc::channel();
    let app: Router = Router::new()
        .route(
            "/",
            get(async move |deferred: DeferredCallbackCollection| {
                sender.send(deferred).unwrap();
                StatusCode::CONFLICT
            }),
        )
        .layer(layer.clone());
    let response = app.oneshot(Request::new(Body::empty())).await.unwrap();
    response.into_body().collect().await.unwrap();
    receiver.recv().unwrap().defer(async {}).name("late");
    layer.handle().wait_idle().await;
    let line = log.line("deferred callback skipped");
    assert!(
        line.contains(r#"callback="late" method="GET" path="/""#),
        "{line}"
    );
}

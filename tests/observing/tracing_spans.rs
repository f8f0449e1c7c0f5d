//! Feature `tracing`: a span per callback that follows from the request's and does not stretch it.
//!
//! A test of what the crate tells subscribers begins with [`listen`].
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![cfg(feature = "tracing")]

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    error::Error,
    fmt,
    future::{pending, ready},
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    http::{Request, Response, StatusCode},
    routing::get,
};
use axum_defer::{
    CallbackInfo, DeferLayer, DeferObserver, DeferredCallbackCollection, Finished, Outcome, defer,
    defer_blocking,
};
use futures_util::FutureExt;
use http_body_util::BodyExt;
use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider, SpanData};
use tokio::sync::Semaphore;
use tower::{Service, ServiceExt, service_fn};
use tower_http::trace::TraceLayer;
use tracing::{Instrument, Level, Subscriber, info, info_span, span, subscriber::DefaultGuard};
use tracing_subscriber::{
    Layer, Registry,
    layer::{Context, SubscriberExt},
    registry::LookupSpan,
};

use crate::support::{events::Events, log::Log, subscriber::listen};

/// What a span was told.
#[derive(Clone, Debug, Default)]
struct Seen {
    span: &'static str,
    fields: BTreeMap<&'static str, Vec<String>>,
    /// The names of the spans that it follows from and that were open then.
    follows: Vec<String>,
    parent: Option<&'static str>,
    closed: bool,
}

#[derive(Clone, Debug)]
struct Event {
    level: Level,
    message: String,
    fields: BTreeMap<&'static str, Vec<String>>,
    inside: Option<&'static str>,
}

#[derive(Clone, Default)]
struct Capture(Arc<Mutex<Captured>>);

#[derive(Default)]
struct Captured {
    /// In the order in which they were made; an id may be used again, a place here is not.
    spans: Vec<(u64, Seen)>,
    /// Names of spans, in the order in which they were closed.
    closed: Vec<&'static str>,
    events: Vec<Event>,
}

impl Captured {
    fn open(&mut self, id: &span::Id) -> Option<&mut Seen> {
        let id = id.into_u64();
        self.spans
            .iter_mut()
            .rev()
            .find(|(known, seen)| *known == id && !seen.closed)
            .map(|(_, seen)| seen)
    }
}

#[derive(Default)]
struct Fields(BTreeMap<&'static str, Vec<String>>);

impl tracing::field::Visit for Fields {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn fmt::Debug) {
        self.0
            .entry(field.name())
            .or_default()
            .push(format!("{value:?}"));
    }

    fn record_str(&mut self, field: &tracing::field::Field, value: &str) {
        self.0
            .entry(field.name())
            .or_default()
            .push(value.to_owned());
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Capture {
    fn on_new_span(
        &self,
        attributes: &span::Attributes<'_>,
        id: &span::Id,
        context: Context<'_, S>,
    ) {
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        let span = context.span(id).unwrap();
        let seen = Seen {
            span: span.name(),
            fields: fields.0,
            parent: span.parent().map(|parent| parent.name()),
            ..Seen::default()
        };
        self.0.lock().unwrap().spans.push((id.into_u64(), seen));
    }

    fn on_record(&self, id: &span::Id, values: &span::Record<'_>, _: Context<'_, S>) {
        let mut fields = Fields::default();
        values.record(&mut fields);
        let mut captured = self.0.lock().unwrap();
        let seen = captured.open(id).unwrap();
        for (name, values) in fields.0 {
            seen.fields.entry(name).or_default().extend(values);
        }
    }

    fn on_follows_from(&self, id: &span::Id, follows: &span::Id, _: Context<'_, S>) {
        let mut captured = self.0.lock().unwrap();
        let followed = captured.open(follows).expect("it is still open");
        let place = followed
            .fields
            .get("name")
            .map_or(followed.span.to_owned(), |name| {
                format!("{} {}", followed.span, name.join("+"))
            });
        captured.open(id).unwrap().follows.push(place);
    }

    fn on_event(&self, event: &tracing::Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let message = fields.0.remove("message").unwrap().join("+");
        self.0.lock().unwrap().events.push(Event {
            level: *event.metadata().level(),
            message,
            fields: fields.0,
            inside: context.event_span(event).map(|span| span.name()),
        });
    }

    fn on_close(&self, id: span::Id, _: Context<'_, S>) {
        let mut captured = self.0.lock().unwrap();
        let seen = captured.open(&id).unwrap();
        seen.closed = true;
        let name = seen.span;
        captured.closed.push(name);
    }
}

impl Capture {
    /// Captures what happens on this thread, and on those that ask for it.
    fn start() -> (Self, DefaultGuard) {
        let capture = Self::default();
        let subscriber = Registry::default().with(capture.clone());
        (capture, listen(subscriber))
    }

    fn deferred(&self) -> Vec<Seen> {
        let captured = self.0.lock().unwrap();
        let spans = captured.spans.iter().map(|(_, seen)| seen);
        spans
            .filter(|seen| seen.span == "deferred")
            .cloned()
            .collect()
    }

    fn named(&self, name: &str) -> Seen {
        let mut spans = self.deferred();
        spans.retain(|seen| {
            seen.fields
                .get("name")
                .is_some_and(|names| names == &[name])
        });
        assert_eq!(spans.len(), 1, "{name}");
        spans.remove(0)
    }

    fn closed(&self) -> Vec<&'static str> {
        self.0.lock().unwrap().closed.clone()
    }

    fn events(&self, of: &str) -> Vec<Event> {
        let captured = self.0.lock().unwrap();
        let is_of = |event: &&Event| {
            event
                .fields
                .get("callback")
                .is_some_and(|name| name == &[of])
        };
        captured.events.iter().filter(is_of).cloned().collect()
    }
}

fn trace() -> TraceLayer<
    tower_http::classify::SharedClassifier<tower_http::classify::ServerErrorsAsFailures>,
    impl Fn(&Request<Body>) -> tracing::Span + Clone,
> {
    TraceLayer::new_for_http().make_span_with(|_: &Request<Body>| info_span!("request"))
}

async fn get_root(app: Router) {
    let response = app.oneshot(Request::new(Body::empty())).await.unwrap();
    response.into_body().collect().await.unwrap();
}

/// Each has the name of its outcome; returns the line of the one that is `ok`.
async fn a_callback_of_each_outcome(layer: &DeferLayer) -> u32 {
    let line = line!() + 3;
    layer
        .scope(async {
            defer(async {}).name("ok");
            defer(async { Err::<(), _>("no luck") }).name("error");
            defer(async { panic!("of the callback") }).name("panicked");
            defer(pending::<()>())
                .name("timed_out")
                .timeout(Duration::ZERO);
            defer(async {}).name("skipped").when(|_| false);
            defer(async {}).name("cancelled").cancel();
            defer(async {}).name("replaced");
            let replaces = defer(async {});
            replaces.name("replaced").name("replaces");
        })
        .await;
    let mut scope = Box::pin(layer.scope(async { drop(defer(pending::<()>()).name("lost")) }));
    assert!(futures_util::poll!(&mut scope).is_pending());
    drop(scope);
    line
}

#[tokio::test]
async fn each_callback_has_a_span_with_its_name_its_place_and_its_outcome_each_recorded_once() {
    let (capture, _guard) = Capture::start();
    let layer = DeferLayer::new();
    let line_of_ok = a_callback_of_each_outcome(&layer).await;

    let names = [
        "ok",
        "error",
        "panicked",
        "timed_out",
        "skipped",
        "cancelled",
        "replaced",
        "lost",
    ];
    for name in names {
        let span = capture.named(name);
        assert_eq!(span.fields["outcome"], [name]);
        assert!(span.closed && span.parent.is_none());
    }
    assert_eq!(capture.named("replaces").fields["outcome"], ["ok"]);
    let place = &capture.named("ok").fields["place"][0];
    assert!(
        place.starts_with(&format!("{}:{line_of_ok}:", file!())),
        "{place}"
    );
}

#[tokio::test]
async fn failures_and_losses_are_errors_and_what_was_wanted_is_at_debug_level() {
    let (capture, _guard) = Capture::start();
    let layer = DeferLayer::new();
    a_callback_of_each_outcome(&layer).await;

    assert!(capture.events("ok").is_empty());
    const COMMON: &str = "callback place";
    for (name, level, message, more) in [
        (
            "error",
            Level::ERROR,
            "deferred callback failed",
            "outcome took",
        ),
        (
            "panicked",
            Level::ERROR,
            "deferred callback failed",
            "outcome took",
        ),
        (
            "timed_out",
            Level::ERROR,
            "deferred callback failed",
            "outcome took",
        ),
        ("lost", Level::ERROR, "deferred callback lost", "reason"),
        (
            "skipped",
            Level::DEBUG,
            "deferred callback skipped",
            "success delivery",
        ),
        ("cancelled", Level::DEBUG, "deferred callback cancelled", ""),
        (
            "replaced",
            Level::DEBUG,
            "deferred callback replaced by a later one of the same name",
            "",
        ),
    ] {
        let events = capture.events(name);
        assert_eq!(events.len(), 1, "{name}");
        assert_eq!(
            (events[0].level, events[0].message.as_str()),
            (level, message)
        );
        assert_eq!(events[0].inside, Some("deferred"));
        assert!(events[0].fields["place"][0].starts_with(file!()));
        // The table in the docs of the crate.
        let fields: BTreeSet<_> = events[0].fields.keys().copied().collect();
        let expected = COMMON.split(' ').chain(more.split_whitespace());
        assert_eq!(fields, expected.collect(), "{name}");
    }
    assert_eq!(
        capture.events("error")[0].fields["outcome"],
        ["error: no luck"]
    );
    assert_eq!(
        capture.events("panicked")[0].fields["outcome"],
        ["panicked: of the callback"]
    );
    assert_eq!(
        capture.events("skipped")[0].fields["delivery"],
        ["Complete"]
    );
}

#[tokio::test]
async fn the_span_follows_from_the_requests_which_closes_with_the_response() {
    let (capture, _guard) = Capture::start();
    let gate = Arc::new(Semaphore::new(0));
    let layer = DeferLayer::new();
    let handle = layer.handle();
    let opened = gate.clone();
    let app: Router = Router::new()
        .route(
            "/",
            get(|| async move {
                defer(async move {
                    opened.acquire().await.unwrap().forget();
                    info!("inside of the callback");
                })
                .name("callback");
                "hello"
            }),
        )
        .layer(layer)
        .layer(trace());
    get_root(app).await;
    while handle.running() == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(capture.closed(), ["request"]);

    gate.add_permits(1);
    handle.wait_idle().await;
    assert_eq!(capture.closed(), ["request", "deferred"]);
    assert_eq!(capture.named("callback").follows, ["request"]);
    let captured = capture.0.lock().unwrap();
    let inside = captured
        .events
        .iter()
        .find(|event| event.message == "inside of the callback");
    assert_eq!(inside.unwrap().inside, Some("deferred"));
}

#[tokio::test]
async fn nested_callbacks_and_layers_and_instrumented_tasks_are_linked_too() {
    let (capture, _guard) = Capture::start();
    let (inner, outer) = (DeferLayer::new(), DeferLayer::new());
    let handle = inner.handle();
    let kept = Arc::new(Mutex::new(None));
    let in_handler = kept.clone();
    let app: Router = Router::new()
        .route(
            "/",
            get(move |deferred: DeferredCallbackCollection| async move {
                defer(async {
                    defer(async {
                        defer(async {}).name("nested twice");
                    })
                    .name("nested");
                })
                .name("handler's");
                let task = async move {
                    deferred.defer(async {}).name("of a task");
                    *in_handler.lock().unwrap() = Some(deferred);
                };
                tokio::spawn(task.instrument(info_span!("task")))
                    .await
                    .unwrap();
            }),
        )
        .layer(inner)
        .layer(trace())
        .layer(outer);
    get_root(app).await;
    handle.wait_idle().await;
    let collection = kept.lock().unwrap().take().unwrap();
    info_span!("much later").in_scope(|| collection.defer(async {}).name("late"));
    handle.wait_idle().await;

    assert_eq!(capture.named("handler's").follows, ["request"]);
    assert_eq!(capture.named("nested").follows, ["deferred handler's"]);
    assert_eq!(capture.named("nested twice").follows, ["deferred nested"]);
    assert_eq!(capture.named("of a task").follows, ["task"]);
    assert_eq!(capture.named("late").follows, ["much later"]);
    assert!(
        capture
            .deferred()
            .iter()
            .all(|span| span.closed && span.parent.is_none())
    );
}

#[tokio::test]
async fn blocking_callbacks_run_inside_of_their_span() {
    let (capture, _guard) = Capture::start();
    let dispatch = tracing::dispatcher::get_default(Clone::clone);
    DeferLayer::new()
        .scope(async {
            defer_blocking(move || {
                tracing::dispatcher::with_default(&dispatch, || info!("on the blocking thread"));
            })
            .name("blocking");
        })
        .await;
    let captured = capture.0.lock().unwrap();
    assert_eq!(captured.events.last().unwrap().inside, Some("deferred"));
    assert_eq!(captured.closed, ["deferred"]);
}

#[tokio::test]
async fn errors_are_told_where_spans_of_that_level_are_off() {
    let capture = Capture::default();
    let filter = tracing_subscriber::filter::LevelFilter::ERROR;
    // A filter of the whole subscriber: one of a layer leaves the span to the registry.
    let _guard = listen(Registry::default().with(capture.clone()).with(filter));
    DeferLayer::new()
        .scope(async { drop(defer(async { Err::<(), _>("no luck") }).name("error")) })
        .await;
    assert!(capture.deferred().is_empty());
    let events = capture.events("error");
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].fields["outcome"], ["error: no luck"]);
}

#[test]
fn what_the_runtime_took_with_it_is_an_error_with_its_reason() {
    let (capture, _guard) = Capture::start();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let layer = DeferLayer::new();
    let collection = runtime.block_on(
        layer.scope(async { Ok::<_, Infallible>(DeferredCallbackCollection::current().unwrap()) }),
    );
    drop(runtime);
    collection.unwrap().defer(async {}).name("too late");
    let events = capture.events("too late");
    assert_eq!(events[0].level, Level::ERROR);
    assert_eq!(
        events[0].fields["reason"],
        ["there is no runtime to run it on"]
    );
    assert_eq!(capture.named("too late").fields["outcome"], ["lost"]);
}

#[test]
fn a_lost_callback_is_a_line_of_the_log_with_its_name_its_place_and_the_reason() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(log.clone())
        .finish();
    let _guard = listen(subscriber);
    let mut service = tower::Layer::layer(
        &DeferLayer::new(),
        service_fn(|_: Request<Body>| {
            defer(async {}).name("a");
            defer(async {}).name("b").always();
            ready(Ok::<_, Infallible>(Response::new(Body::from("hello"))))
        }),
    );
    // There is no runtime.
    let response = service.call(Request::new(Body::empty())).now_or_never();
    drop(response.unwrap());

    let text = log.text();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 2, "{text}");
    for (line, name) in lines.iter().zip(["a", "b"]) {
        assert!(line.contains("ERROR"), "{line}");
        assert!(line.contains(&format!("callback=\"{name}\"")), "{line}");
        assert!(line.contains("there is no runtime to run it on"), "{line}");
        assert!(line.contains(file!()), "{line}");
    }
}

/// An error that can't be shown, and counts who tries.
#[derive(Debug)]
struct PanicsWhenShown(Arc<AtomicUsize>);

impl fmt::Display for PanicsWhenShown {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fetch_add(1, SeqCst);
        panic!("in `Display` of an error");
    }
}

impl Error for PanicsWhenShown {}

#[derive(Clone, Default)]
struct Errors(Arc<AtomicUsize>);

impl DeferObserver for Errors {
    fn finished(&self, _: &CallbackInfo<'_>, finished: &Finished<'_>) {
        if let Outcome::Error(error) = finished.outcome {
            assert!(error.is::<PanicsWhenShown>());
            self.0.fetch_add(1, SeqCst);
        }
    }
}

#[tokio::test]
async fn an_error_whose_message_panics_is_told_once_and_stops_nobody() {
    // Shows the error, as a log does.
    let subscriber = tracing_subscriber::fmt().with_writer(io::sink).finish();
    let _guard = listen(subscriber);
    let shown = Arc::new(AtomicUsize::new(0));
    let (errors, events) = (Errors::default(), Events::default());
    let layer = DeferLayer::new()
        .observer(errors.clone())
        .observer(events.clone());
    let error = PanicsWhenShown(shown.clone());
    layer
        .scope(async {
            defer(async { Err::<(), _>(error) }).name("error");
            defer(async {}).name("next");
        })
        .await;
    assert!(shown.load(SeqCst) > 0, "somebody has asked for its text");
    assert_eq!(errors.0.load(SeqCst), 1);
    assert_eq!(events.of("next"), ["registered", "started", "finished ok"]);
    assert!(events.starting_with("lost").is_empty());
    assert_eq!((layer.handle().pending(), layer.handle().running()), (0, 0));
    let report = layer.handle().drain(Duration::ZERO).await;
    assert!(report.is_complete(), "{report}");
}

#[tokio::test]
async fn in_opentelemetry_the_callback_is_linked_to_the_trace_and_outside_of_its_duration() {
    let exporter = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder()
        .with_simple_exporter(exporter.clone())
        .build();
    let telemetry = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
    let _guard = listen(Registry::default().with(telemetry));
    let finished = || exporter.get_finished_spans().unwrap();

    let gate = Arc::new(Semaphore::new(0));
    let opened = gate.clone();
    let layer = DeferLayer::new();
    let handle = layer.handle();
    let app: Router = Router::new()
        .route(
            "/",
            get(|| async move {
                defer(async move { opened.acquire().await.unwrap().forget() });
                defer(async { Err::<(), _>("no luck") });
                StatusCode::NO_CONTENT
            }),
        )
        .layer(layer)
        .layer(trace());
    get_root(app).await;
    while handle.running() == 0 {
        tokio::task::yield_now().await;
    }
    let request: SpanData = match &finished()[..] {
        [request] => request.clone(),
        others => panic!("only the request is over: {others:?}"),
    };
    assert_eq!(request.name, "request");

    gate.add_permits(1);
    handle.wait_idle().await;
    let finished = finished();
    assert_eq!(finished.len(), 3);
    for deferred in &finished[1..] {
        assert_eq!(deferred.name, "deferred");
        let links: Vec<_> = deferred
            .links
            .iter()
            .map(|link| &link.span_context)
            .collect();
        assert_eq!(links, [&request.span_context]);
        assert_ne!(
            deferred.span_context.trace_id(),
            request.span_context.trace_id()
        );
    }
}

#[tokio::test]
async fn each_connection_of_serve_has_a_span_with_its_address_and_its_requests_are_inside() {
    let capture = Capture::default();
    // hyper and h2 have much to tell of their own.
    let ours = tracing_subscriber::filter::filter_fn(|metadata| {
        let target = metadata.target();
        target.starts_with("axum_defer") || target == module_path!()
    });
    let _guard = listen(Registry::default().with(capture.clone()).with(ours));
    let app = Router::new()
        .route("/", get(|| async { "hello" }))
        .layer(trace());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = axum_defer::serve(listener, app);
    let server = tokio::spawn(async move { server.await });
    let mut clients = Vec::new();
    for is_http2 in [false, true] {
        let stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let client = format!("{:?}", stream.local_addr().unwrap());
        let io = hyper_util::rt::TokioIo::new(stream);
        let request = Request::get(format!("http://{address}/"));
        let request = request.body(http_body_util::Empty::<&[u8]>::new()).unwrap();
        let response = if is_http2 {
            let executor = hyper_util::rt::TokioExecutor::new();
            let handshake = hyper::client::conn::http2::handshake(executor, io).await;
            let (mut sender, connection) = handshake.unwrap();
            tokio::spawn(connection);
            sender.send_request(request).await.unwrap()
        } else {
            let handshake = hyper::client::conn::http1::handshake(io).await;
            let (mut sender, connection) = handshake.unwrap();
            tokio::spawn(connection);
            sender.send_request(request).await.unwrap()
        };
        response.into_body().collect().await.unwrap();
        clients.push(client);
    }
    server.abort();
    let _ = server.await;
    let captured = capture.0.lock().unwrap();
    let of_name = |name: &'static str| {
        let spans = captured.spans.iter().map(|(_, seen)| seen);
        spans.filter(move |seen| seen.span == name)
    };
    let addresses: Vec<_> = of_name("connection")
        .map(|seen| seen.fields["remote_addr"][0].clone())
        .collect();
    assert_eq!(addresses, clients);
    assert!(of_name("connection").all(|seen| seen.parent.is_none()));
    let parents: Vec<_> = of_name("request").map(|seen| seen.parent).collect();
    assert_eq!(parents, [Some("connection"); 2]);
}

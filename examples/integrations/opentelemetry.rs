//! Traces: `cargo run --example opentelemetry`.
//!
//! Sends a request to a server, prints the spans that OpenTelemetry exports, and exits. Each
//! deferred callback has a span, linked to the span of the request and in a trace of its own; the
//! request's span ends with the response, however long callbacks take.

use std::{error::Error, sync::Arc, time::Duration};

use axum::{Router, extract::State, routing::get};
use axum_defer::{DeferLayer, defer};
use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider, SpanData};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Notify,
};
use tower_http::trace::{DefaultMakeSpan, TraceLayer};
use tracing::{Instrument, Level};
use tracing_subscriber::layer::SubscriberExt;

async fn handler(State(response_received): State<Arc<Notify>>) -> &'static str {
    defer(async move {
        response_received.notified().await;
        // What a callback calls is traced as its child.
        let smtp = tokio::time::sleep(Duration::from_millis(40));
        smtp.instrument(tracing::info_span!("smtp")).await;
    })
    .name("mail");
    defer(async { Err("the disk is full") }).name("audit");
    "hello"
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let exporter = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder()
        .with_simple_exporter(exporter.clone())
        .build();
    let telemetry = tracing_opentelemetry::layer().with_tracer(provider.tracer("shop"));
    tracing::subscriber::set_global_default(
        tracing_subscriber::registry()
            .with(tracing_subscriber::filter::LevelFilter::INFO)
            .with(telemetry),
    )?;

    let response_received = Arc::new(Notify::new());
    let layer = DeferLayer::new();
    let deferred = layer.handle();
    let app = Router::new()
        .route("/", get(handler))
        .with_state(response_received.clone())
        .layer(layer)
        .layer(
            TraceLayer::new_for_http().make_span_with(DefaultMakeSpan::new().level(Level::INFO)),
        );
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let mut client = TcpStream::connect(listener.local_addr()?).await?;
    tokio::spawn(axum_defer::serve(listener, app).into_future());

    client
        .write_all(b"GET / HTTP/1.1\r\nhost: shop\r\nconnection: close\r\n\r\n")
        .await?;
    client.read_to_end(&mut Vec::new()).await?;
    response_received.notify_one();
    deferred.wait_idle().await;
    provider.force_flush()?;

    let spans = exporter.get_finished_spans()?;
    let request = find(&spans, "request")?;
    for span in &spans {
        print(span, request);
    }
    for deferred in spans.iter().filter(|span| span.name == "deferred") {
        assert!(is_linked(deferred, request));
    }
    // Spans are exported as they end.
    let place = |name| spans.iter().position(|span| span.name == name);
    assert!(place("request") < place("smtp"));
    println!("the request had ended before the mail was sent: its span does not contain it");
    Ok(())
}

fn find<'a>(spans: &'a [SpanData], name: &str) -> Result<&'a SpanData, String> {
    let found = spans.iter().find(|span| span.name == name);
    found.ok_or(format!("no span {name}"))
}

fn is_linked(span: &SpanData, to: &SpanData) -> bool {
    span.links
        .iter()
        .any(|link| link.span_context == to.span_context)
}

fn print(span: &SpanData, request: &SpanData) {
    println!("{}", span.name);
    println!("  trace     {}", span.span_context.trace_id());
    println!("  span      {}", span.span_context.span_id());
    if is_linked(span, request) {
        println!("  linked to {}", request.span_context.span_id());
    }
    let took = span.end_time.duration_since(span.start_time);
    println!("  took      {} ms", took.unwrap_or_default().as_millis());
    for attribute in &span.attributes {
        if ["name", "place", "outcome"].contains(&attribute.key.as_str()) {
            println!("  {:<9} {}", attribute.key, attribute.value);
        }
    }
    println!();
}

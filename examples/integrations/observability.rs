//! Logs, traces, and metrics: `cargo run --example observability`.
//!
//! Each callback has a span in a separate trace, with a link to the span of its request. The
//! request's span ends with the response. Metrics count callbacks by outcome. Lost and skipped
//! callbacks have different labels, so an alert on lost ones ignores skipped ones:
//!
//! ```promql
//! increase(deferred_callbacks_total{outcome="lost"}[5m]) > 0
//! ```

use std::{error::Error, io::stderr, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::{Path, Request, State},
    http::StatusCode,
    routing::get,
};
use axum_defer::{DeferLayer, defer};
use http_body_util::BodyExt;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};
use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider, SpanData};
use tokio::sync::Notify;
use tower::ServiceExt;
use tower_http::trace::{DefaultMakeSpan, TraceLayer};
use tracing::{Instrument, Level, info_span, level_filters::LevelFilter};
use tracing_subscriber::{fmt, layer::SubscriberExt};

async fn answer(State(received): State<Arc<Notify>>, Path(status): Path<u16>) -> StatusCode {
    defer(async move {
        received.notified().await;
        // A child of the callback's span.
        let smtp = tokio::time::sleep(Duration::from_millis(40));
        smtp.instrument(info_span!("smtp")).await;
    })
    .name("mail");
    defer(async { Err("the disk is full") })
        .name("audit")
        .always();
    StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // A real app uses an OTLP exporter with a batch processor.
    let exporter = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder()
        .with_simple_exporter(exporter.clone())
        .build();
    let telemetry = tracing_opentelemetry::layer().with_tracer(provider.tracer("shop"));
    tracing::subscriber::set_global_default(
        tracing_subscriber::registry()
            .with(LevelFilter::INFO)
            .with(fmt::layer().with_writer(stderr))
            .with(telemetry),
    )?;
    let seconds = Matcher::Suffix("_seconds".to_owned());
    let prometheus = PrometheusBuilder::new()
        .set_buckets_for_metric(seconds, &[0.001, 0.01, 0.1, 1.0, 10.0])?
        .install_recorder()?;

    let received = Arc::new(Notify::new());
    let layer = DeferLayer::new();
    let deferred = layer.handle();
    let request_span = DefaultMakeSpan::new().level(Level::INFO);
    let app: Router = Router::new()
        .route("/{status}", get(answer))
        .with_state(received.clone())
        .layer(layer)
        // Outside the layer, so that callbacks see the span of their request.
        .layer(TraceLayer::new_for_http().make_span_with(request_span))
        .route("/metrics", get(async move || prometheus.render()));

    fetch(&app, "/200").await?;
    received.notify_one();
    deferred.wait_idle().await;
    let spans = exporter.get_finished_spans()?;
    let position = |name| spans.iter().position(|span| span.name == name);
    let request = &spans[position("request").ok_or("no request span")?];
    spans.iter().for_each(|span| print(span, request));
    // Spans are exported as they end.
    assert!(position("request") < position("smtp"));
    println!("the request span ended before the mail was sent");

    fetch(&app, "/201").await?;
    received.notify_one();
    fetch(&app, "/404").await?;
    deferred.wait_idle().await;
    println!("\n{}", fetch(&app, "/metrics").await?);
    Ok(())
}

async fn fetch(app: &Router, path: &str) -> Result<String, Box<dyn Error>> {
    let request = Request::get(path).body(Body::empty())?;
    let response = app.clone().oneshot(request).await?;
    let body = response.into_body().collect().await?.to_bytes();
    Ok(String::from_utf8_lossy(&body).into_owned())
}

fn print(span: &SpanData, request: &SpanData) {
    println!("{}", span.name);
    println!("  trace     {}", span.span_context.trace_id());
    println!("  span      {}", span.span_context.span_id());
    for link in span.links.iter() {
        assert_eq!(link.span_context, request.span_context);
        println!("  linked to {}", link.span_context.span_id());
    }
    for attribute in &span.attributes {
        if attribute.key.as_str() == "callback" {
            println!("  {:<9} {}", attribute.key, attribute.value);
        }
    }
    println!();
}

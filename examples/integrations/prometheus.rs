//! Metrics for Prometheus: `cargo run --example prometheus --features metrics`.
//!
//! Sends a few requests to an app, scrapes its `/metrics`, prints them, and exits. Work that was
//! lost has a label of its own, so an alert on it is not set off by callbacks that were skipped
//! on purpose:
//!
//! ```promql
//! increase(deferred_callbacks_total{outcome="lost"}[5m]) > 0
//! ```

use axum::{
    Router,
    body::Body,
    extract::{Path, Request},
    http::StatusCode,
    routing::get,
};
use axum_defer::{DeferLayer, defer};
use http_body_util::BodyExt;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};
use tower::ServiceExt;

async fn answer(Path(status): Path<u16>) -> StatusCode {
    defer(async { /* send a mail */ }).name("mail");
    defer(async { Err("the disk is full") })
        .name("audit")
        .always();
    StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let seconds = Matcher::Suffix("_seconds".to_owned());
    let prometheus = PrometheusBuilder::new()
        .set_buckets_for_metric(seconds, &[0.001, 0.01, 0.1, 1.0, 10.0])?
        .install_recorder()?;
    let layer = DeferLayer::new();
    let deferred = layer.handle();
    let app: Router = Router::new()
        .route("/{status}", get(answer))
        .layer(layer)
        .route("/metrics", get(async move || prometheus.render()));

    for path in ["/200", "/201", "/404"] {
        fetch(&app, path).await?;
    }
    deferred.wait_idle().await;
    println!("{}", fetch(&app, "/metrics").await?);
    Ok(())
}

async fn fetch(app: &Router, path: &str) -> Result<String, Box<dyn std::error::Error>> {
    let request = Request::get(path).body(Body::empty())?;
    let response = app.clone().oneshot(request).await?;
    let body = response.into_body().collect().await?.to_bytes();
    Ok(String::from_utf8_lossy(&body).into_owned())
}

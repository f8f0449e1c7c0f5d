//! gRPC, whose status is in the trailers: `cargo run --example grpc`.
//!
//! tonic's health service responds to two calls. The callback of the successful call runs. That of the
//! failed call is skipped, although the HTTP status is 200.

use std::error::Error;

use axum::{
    extract::Request,
    middleware::{Next, from_fn},
    response::Response,
};
use axum_defer::{CallbackInfo, Completion, DeferLayer, DeferObserver, defer};
use tokio::net::TcpListener;
use tonic::{Code, service::Routes, transport::Endpoint};
use tonic_health::{
    ServingStatus,
    pb::{HealthCheckRequest, health_client::HealthClient},
    server::health_reporter,
};

/// Defers a callback around tonic's service. In a service of your own, call `defer` in a method.
async fn bill(request: Request, next: Next) -> Response {
    defer(async { println!("billed") }).name("bill");
    next.run(request).await
}

struct Skipped;

impl DeferObserver for Skipped {
    fn skipped(&self, callback: &CallbackInfo<'_>, completion: &Completion) {
        let name = callback.name().unwrap_or("unnamed");
        let status = completion.status().map_or(0, |status| status.as_u16());
        println!("{name} skipped: the HTTP status was {status}, the call failed");
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (reporter, health) = health_reporter();
    reporter
        .set_service_status("shop", ServingStatus::Serving)
        .await;
    // Reads `grpc-status` in the headers and the trailers.
    let layer = DeferLayer::new_for_grpc().observer(Skipped);
    let deferred = layer.handle();
    let app = Routes::new(health)
        .into_axum_router()
        .layer(from_fn(bill))
        .layer(layer);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(axum_defer::serve(listener, app).into_future());

    let channel = Endpoint::new(format!("http://{address}"))?
        .connect()
        .await?;
    let mut client = HealthClient::new(channel);
    let call = |service: &str| HealthCheckRequest {
        service: service.to_owned(),
    };

    let health = client.check(call("shop")).await?.into_inner();
    println!("shop: {:?}", health.status());
    deferred.wait_idle().await;

    let failed = client.check(call("casino")).await;
    let status = failed.expect_err("an unknown service");
    assert_eq!(status.code(), Code::NotFound);
    println!("casino: {:?}", status.code());
    deferred.wait_idle().await;
    Ok(())
}

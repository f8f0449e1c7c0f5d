//! gRPC through `axum_defer::serve`: the status is in trailers, which end the response.

use axum_defer::{Completion, DeferLayer, DeferredCallbackCollection, Delivery, Level, serve};
use tokio::sync::mpsc;
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use crate::support::{in_time, listen};

/// Defers what reports the completion of each request, as an interceptor might.
fn report_to(
    completions: mpsc::UnboundedSender<Completion>,
) -> impl Fn(axum::extract::Request) -> axum::extract::Request + Clone {
    move |request| {
        let completions = completions.clone();
        let deferred = request.extensions().get::<DeferredCallbackCollection>();
        deferred
            .expect("the layer is outside")
            .defer(move |completion: Completion| async move { completions.send(completion) })
            .always();
        request
    }
}

#[tokio::test]
async fn a_grpc_status_in_trailers_or_headers_decides_after_it_was_sent() {
    let (sender, mut completions) = mpsc::unbounded_channel();
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter
        .set_service_status("known", tonic_health::ServingStatus::Serving)
        .await;
    let app = tonic::service::Routes::new(health)
        .into_axum_router()
        .layer(tower::util::MapRequestLayer::new(report_to(sender)))
        .layer(DeferLayer::new_for_grpc());
    let (listener, address) = listen().await;
    tokio::spawn(serve(listener, app).into_future());

    let channel = tonic::transport::Endpoint::new(format!("http://{address}"))
        .unwrap()
        .connect()
        .await
        .unwrap();
    let mut client = HealthClient::new(channel);
    let request = |service: &str| HealthCheckRequest {
        service: service.to_owned(),
    };

    in_time(client.check(request("known"))).await.unwrap();
    let completion = in_time(completions.recv()).await.unwrap();
    assert!(completion.is_success(), "{completion:?}");
    assert_eq!(completion.delivery(), Delivery::Complete);
    assert_eq!(completion.level(), Level::Flushed);
    assert!(completion.body_bytes() > 0);

    in_time(client.check(request("unknown"))).await.unwrap_err();
    let completion = in_time(completions.recv()).await.unwrap();
    assert!(!completion.is_success(), "{completion:?}");
    assert_eq!(completion.status(), Some(http::StatusCode::OK));
    assert_eq!(completion.delivery(), Delivery::Complete);

    let watch = in_time(client.watch(request("known"))).await;
    let mut watch = watch.unwrap().into_inner();
    in_time(watch.message()).await.unwrap().unwrap();
    drop(watch);
    let completion = in_time(completions.recv()).await.unwrap();
    assert_eq!(completion.delivery(), Delivery::Aborted);
    assert!(completion.is_success(), "the work was done: {completion:?}");
}

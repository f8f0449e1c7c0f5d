//! The layer in every place that a Tower stack has for it.

use std::{convert::Infallible, future::Future, net::SocketAddr, pin::Pin};

use axum::{
    Router,
    body::Body,
    extract::Request,
    http::{HeaderMap, StatusCode},
    response::Response,
    routing::get,
};
use axum_defer::{
    Completion, DeferLayer, DeferredCallbackCollection,
    Delivery::{Aborted, Complete, NoResponse},
};
use bytes::{BufMut, Bytes, BytesMut};
use futures_util::{StreamExt, stream};
use http_body_util::{BodyExt, Full};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    service::TowerToHyperService,
};
use tower::{ServiceBuilder, ServiceExt, service_fn, util::MapRequestLayer};

use crate::support::{self, Events, Log, Server, What, http2, in_time, listen};

/// Defers one callback of each kind, where there is a scope.
fn defers(log: &Log) -> &'static str {
    if DeferredCallbackCollection::current().is_none() {
        return "no scope";
    }
    log.defer("default");
    log.defer("always").always();
    "deferred"
}

/// Whether the default callback ran, and how the response ended.
async fn verdict(events: &mut Events) -> (bool, Completion) {
    let (default, what) = events.next().await;
    assert_eq!(default, "default");
    let ran = matches!(what, What::Ran(_));
    let (always, what) = events.next().await;
    assert_eq!(always, "always");
    assert!(matches!(what, What::Ran(_)), "{what:?}");
    (ran, what.completion())
}

async fn body_of(server: &Server, path: &str) -> String {
    let mut client = server.raw().await;
    client.get(path).await;
    String::from_utf8(client.response(false).await.unwrap().body).unwrap()
}

#[tokio::test]
async fn the_layer_covers_what_it_is_put_around() {
    let (log, mut events) = Log::new();
    let layer = DeferLayer::new().observer(log.clone());
    let in_handler = log.clone();
    let handler = get(async move || defers(&in_handler));
    let routes = || Router::new().route("/", handler.clone());
    let covered = || routes().layer(layer.clone());
    let other = || Router::new().route("/other", handler.clone());
    // What is covered, and a path that is not.
    let cases: [(&str, Router, &str, Option<&str>); 9] = [
        ("Router::layer", covered(), "/", None),
        (
            "Router::layer before a route",
            covered().route("/other", handler.clone()),
            "/",
            Some("/other"),
        ),
        (
            "Router::route_layer",
            routes().route_layer(layer.clone()),
            "/",
            None,
        ),
        (
            "MethodRouter::layer",
            other().route("/", handler.clone().layer(layer.clone())),
            "/",
            Some("/other"),
        ),
        (
            "nest, with the layer inside",
            other().nest("/nested", covered()),
            "/nested",
            Some("/other"),
        ),
        (
            "nest, with the layer outside",
            Router::new().nest("/nested", routes()).layer(layer.clone()),
            "/nested",
            None,
        ),
        (
            "nest_service",
            other().nest_service("/nested", layer.layer(routes())),
            "/nested/",
            Some("/other"),
        ),
        ("merge", other().merge(covered()), "/", Some("/other")),
        (
            "ServiceBuilder",
            routes().layer(ServiceBuilder::new().layer(layer.clone())),
            "/",
            None,
        ),
    ];
    for (case, app, covered, left_alone) in cases {
        let server = Server::start(app).await;
        assert_eq!(body_of(&server, covered).await, "deferred", "{case}");
        let (ran, completion) = verdict(&mut events).await;
        assert!(ran, "{case}");
        assert_eq!(
            (completion.delivery(), completion.body_bytes()),
            (Complete, 8)
        );
        if let Some(path) = left_alone {
            assert_eq!(body_of(&server, path).await, "no scope", "{case}");
        }
        in_time(layer.handle().wait_idle()).await;
        assert!(events.so_far().is_empty(), "{case}");
    }
}

#[tokio::test]
async fn a_route_layer_leaves_the_fallback_alone_and_a_layer_does_not() {
    let (log, mut events) = Log::new();
    let layer = DeferLayer::new().observer(log.clone());
    let in_fallback = log.clone();
    let fallback = async move || (StatusCode::NOT_FOUND, defers(&in_fallback));
    let routes = || {
        Router::new()
            .route("/", get(async || ()))
            .fallback(fallback.clone())
    };
    let server = Server::start(routes().route_layer(layer.clone())).await;
    assert_eq!(body_of(&server, "/none").await, "no scope");
    let server = Server::start(routes().layer(layer.clone())).await;
    assert_eq!(body_of(&server, "/none").await, "deferred");
    let (ran, completion) = verdict(&mut events).await;
    assert!(!ran);
    assert_eq!(completion.status(), Some(StatusCode::NOT_FOUND));
}

#[tokio::test]
async fn a_service_without_axum_with_bodies_and_errors_of_its_own() {
    let (log, mut events) = Log::new();
    let in_service = log.clone();
    let service = ServiceBuilder::new()
        .layer(DeferLayer::new().observer(log))
        .service(service_fn(
            move |request: http::Request<hyper::body::Incoming>| {
                let extension = request.extensions().get::<DeferredCallbackCollection>();
                assert!(extension.unwrap().is_empty());
                let log = in_service.clone();
                async move {
                    let text = defers(&log);
                    match request.uri().path() {
                        "/error" => Err(std::fmt::Error),
                        _ => Ok(http::Response::new(Full::new(Bytes::from(text)))),
                    }
                }
            },
        ));
    let (listener, address) = listen().await;
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let service = TowerToHyperService::new(service.clone());
            tokio::spawn(async move {
                hyper_util::server::conn::auto::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), service)
                    .await
                    .map_err(drop)
            });
        }
    });
    let mut client = support::RawClient::connect(address).await;
    client.get("/").await;
    assert_eq!(client.response(false).await.unwrap().body, b"deferred");
    let (ran, completion) = verdict(&mut events).await;
    assert!(ran);
    assert_eq!(
        (completion.delivery(), completion.body_bytes()),
        (Complete, 8)
    );
    client.get("/error").await;
    assert!(client.response(false).await.is_none());
    let (ran, completion) = verdict(&mut events).await;
    assert!(!ran);
    assert_eq!(completion.delivery(), NoResponse);
}

mod grpc {
    use super::*;
    use axum_defer::Level;

    type Serving = Pin<Box<dyn Future<Output = Result<(), tonic::transport::Error>> + Send>>;

    /// tonic's own server and health service, with both callbacks deferred for every call.
    async fn health_server(log: &Log) -> SocketAddr {
        let (listener, address) = listen().await;
        let (_, service) = tonic_health::server::health_reporter();
        let in_calls = log.clone();
        let serving: Serving = Box::pin(
            tonic::transport::Server::builder()
                .layer(DeferLayer::new_for_grpc().observer(log.clone()))
                .layer(MapRequestLayer::new(move |request: http::Request<_>| {
                    defers(&in_calls);
                    request
                }))
                .add_service(service)
                .serve_with_incoming(tokio_stream::wrappers::TcpListenerStream::new(listener)),
        );
        tokio::spawn(serving);
        address
    }

    /// A call of the health service, over a plain HTTP/2 client.
    fn call(method: &str, service: &str) -> http::Request<Full<Bytes>> {
        // Field 1, a string.
        let mut message = BytesMut::new();
        message.put_slice(&[0x0a, u8::try_from(service.len()).unwrap()]);
        message.put_slice(service.as_bytes());
        let mut body = BytesMut::new();
        body.put_u8(0);
        body.put_u32(u32::try_from(message.len()).unwrap());
        body.put(message);
        http::Request::post(format!("http://localhost/grpc.health.v1.Health/{method}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(Full::new(body.freeze()))
            .unwrap()
    }

    fn status_in(headers: &HeaderMap) -> Option<&str> {
        headers
            .get("grpc-status")
            .map(|status| status.to_str().unwrap())
    }

    #[tokio::test]
    async fn a_unary_call_succeeds_by_the_status_in_its_trailers() {
        let (log, mut events) = Log::new();
        let mut client = http2(health_server(&log).await).await;
        let response = client.send_request(call("Check", "")).await.unwrap();
        assert_eq!(status_in(response.headers()), None);
        let body = in_time(response.into_body().collect()).await.unwrap();
        assert_eq!(status_in(body.trailers().unwrap()), Some("0"));
        let (ran, completion) = verdict(&mut events).await;
        assert!(ran && completion.is_success());
        assert_eq!(
            (completion.delivery(), completion.level()),
            (Complete, Level::HandedOff)
        );
        assert_eq!(completion.body_bytes(), body.to_bytes().len() as u64);
    }

    #[tokio::test]
    async fn a_call_that_fails_with_http_status_200_is_a_failure() {
        let (log, mut events) = Log::new();
        let mut client = http2(health_server(&log).await).await;
        let response = client.send_request(call("Check", "unknown")).await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(status_in(response.headers()), Some("5"), "NOT_FOUND");
        let (ran, completion) = verdict(&mut events).await;
        assert!(!ran && !completion.is_success());
        assert_eq!(completion.status(), Some(StatusCode::OK));
        assert_eq!(completion.delivery(), Complete);
    }

    #[tokio::test]
    async fn a_stream_that_the_client_leaves_is_aborted() {
        let (log, mut events) = Log::new();
        let mut client = http2(health_server(&log).await).await;
        let response = client.send_request(call("Watch", "")).await.unwrap();
        let mut body = response.into_body();
        let first = in_time(body.frame()).await.unwrap().unwrap();
        assert!(events.is_empty());
        drop(body);
        let (ran, completion) = verdict(&mut events).await;
        // No trailers, so the HTTP status stands.
        assert!(ran && completion.is_success());
        assert_eq!(completion.delivery(), Aborted);
        assert_eq!(
            completion.body_bytes(),
            first.data_ref().unwrap().len() as u64
        );
    }

    /// A response of the shape that a gRPC service gives, through the gRPC layer.
    async fn judged(
        status: u16,
        head: &[(&str, &str)],
        trailers: Option<&'static str>,
    ) -> (bool, Completion) {
        let (log, mut events) = Log::new();
        let in_service = log.clone();
        let mut response = Response::builder().status(status);
        for (name, value) in head {
            response = response.header(*name, *value);
        }
        let mut frames = vec![support::data("hello")];
        if let Some(status) = trailers {
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", status.parse().unwrap());
            frames.push(Ok(http_body::Frame::trailers(trailers)));
        }
        let mut response = Some(response.body(support::frames(frames)).unwrap());
        let service = service_fn(|_: Request| {
            defers(&in_service);
            std::future::ready(Ok::<_, Infallible>(response.take().unwrap()))
        });
        let layer = DeferLayer::new_for_grpc().observer(log);
        let mut request: Request = support::get("/");
        *request.version_mut() = http::Version::HTTP_2;
        let response = layer.layer(service).oneshot(request).await.unwrap();
        response.into_body().collect().await.unwrap();
        verdict(&mut events).await
    }

    #[tokio::test]
    async fn trailers_and_headers_decide_in_this_order_of_need() {
        for (status, head, trailers, success) in [
            (200, &[][..], Some("0"), true),
            (200, &[], Some("13"), false),
            (200, &[("grpc-status", "0")], None, true),
            (200, &[("grpc-status", "13")], None, false),
            (500, &[], Some("0"), true),
            // Not gRPC: there the HTTP status is all there is.
            (200, &[], None, true),
            (399, &[], None, true),
            (400, &[], None, false),
        ] {
            let (ran, completion) = judged(status, head, trailers).await;
            assert_eq!(
                (ran, completion.is_success()),
                (success, success),
                "{status} {head:?} {trailers:?}"
            );
            assert_eq!(completion.delivery(), Complete);
        }
    }

    #[tokio::test]
    async fn a_head_response_is_whole_without_trailers() {
        let (log, mut events) = Log::new();
        let in_service = log.clone();
        let service = service_fn(move |_: Request| {
            defers(&in_service);
            let body = Body::from_stream(stream::pending::<Result<Bytes, Infallible>>().fuse());
            std::future::ready(Ok::<_, Infallible>(Response::new(body)))
        });
        let layer = DeferLayer::new_for_grpc().observer(log);
        let service = layer
            .layer(service)
            .map_response(|response| response.map(Body::new));
        let server = Server::start(service).await;
        let mut client = server.raw().await;
        client
            .send("HEAD / HTTP/1.1\r\nhost: localhost\r\n\r\n")
            .await;
        assert_eq!(client.response(true).await.unwrap().status, 200);
        let (ran, completion) = verdict(&mut events).await;
        assert!(ran);
        assert_eq!(completion.delivery(), Complete);
    }
}

//! The first table in `docs/layer-order.md`: what the layer covers in each place, and which path and
//! route observers receive there.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::convert::Infallible;

use axum::{Router, body::Body, extract::Request, response::Response, routing::get};
use axum_defer::{DeferLayer, DeferredCallbackCollection, defer};
use tower::{Layer, Service, ServiceExt, make::Shared, util::BoxCloneSyncService};
use tower_http::normalize_path::NormalizePathLayer;

use crate::support::{
    RawClient,
    beside::{Teller, Told},
    in_time, listen,
};

type App = BoxCloneSyncService<Request, Response, Infallible>;

/// A path, and the path and the route that observers receive; `None` without a scope.
type Expected = (&'static str, Option<(&'static str, Option<&'static str>)>);

struct Row {
    placement: &'static str,
    app: fn(DeferLayer) -> App,
    expected: &'static [Expected],
}

const ROUTE: Option<&str> = Some("/users/{id}");

const ROWS: &[Row] = &[
    Row {
        placement: "Router::layer covers routes and the fallback",
        app: |layer| boxed(routes().layer(layer)),
        expected: &[
            ("/users/7", Some(("/users/7", ROUTE))),
            ("/none", Some(("/none", None))),
        ],
    },
    Row {
        placement: "a route that is added later is not covered",
        app: |layer| boxed(routes().layer(layer).route("/late", get(defers))),
        expected: &[("/late", None)],
    },
    Row {
        placement: "Router::route_layer does not cover the fallback",
        app: |layer| boxed(routes().route_layer(layer)),
        expected: &[("/users/7", Some(("/users/7", ROUTE))), ("/none", None)],
    },
    Row {
        placement: "the layer of one route covers it alone",
        app: |layer| boxed(routes().route("/one", get(defers).layer(layer))),
        expected: &[("/one", Some(("/one", Some("/one")))), ("/users/7", None)],
    },
    Row {
        placement: "a nested router has the full path and route",
        app: |layer| boxed(Router::new().nest("/api", routes().layer(layer))),
        expected: &[(
            "/api/users/7",
            Some(("/api/users/7", Some("/api/users/{id}"))),
        )],
    },
    Row {
        placement: "around the router, it covers all without a route",
        app: |layer| boxed(layer.layer(Router::new().nest("/api", routes()).fallback(defers))),
        expected: &[
            ("/api/users/7", Some(("/api/users/7", None))),
            ("/none", Some(("/none", None))),
        ],
    },
    Row {
        placement: "a path that is normalized outside is reported",
        app: |layer| boxed(normalized(routes().layer(layer))),
        expected: &[("/users/7/", Some(("/users/7", ROUTE)))],
    },
    Row {
        placement: "a path that is normalized inside is reported as it arrived",
        app: |layer| boxed(layer.layer(normalized(routes()))),
        expected: &[("/users/7/", Some(("/users/7/", None)))],
    },
];

async fn defers() -> &'static str {
    if DeferredCallbackCollection::current().is_none() {
        return "no scope";
    }
    defer(async {});
    "deferred"
}

fn routes() -> Router {
    Router::new()
        .route("/users/{id}", get(defers))
        .fallback(defers)
}

fn normalized(
    router: Router,
) -> impl Service<Request, Response = Response, Error = Infallible, Future: Send + 'static>
+ Clone
+ Send
+ Sync
+ 'static {
    NormalizePathLayer::trim_trailing_slash().layer(router)
}

fn boxed<S, B>(service: S) -> App
where
    S: Service<Request, Response = Response<B>, Error = Infallible> + Clone + Send + Sync + 'static,
    S::Future: Send + 'static,
    B: http_body::Body<Data = bytes::Bytes, Error: Into<axum::BoxError>> + Send + 'static,
{
    BoxCloneSyncService::new(service.map_response(|response| response.map(Body::new)))
}

/// Requests `path`, and returns what observers received.
async fn observe(
    app: App,
    layer: &DeferLayer,
    observer: &Teller,
    path: &str,
) -> Option<(String, Option<String>)> {
    let (listener, address) = listen().await;
    let server = tokio::spawn(async move { axum_defer::serve(listener, Shared::new(app)).await });
    let mut client = RawClient::connect(address).await;
    client.get(path).await;
    let body = in_time(client.response(false)).await.unwrap().body;
    in_time(layer.handle().wait_idle()).await;
    server.abort();
    match &*body {
        b"no scope" => None,
        b"deferred" => {
            let Told { path, route, .. } = observer.told();
            Some((path, route))
        }
        other => panic!("{}", String::from_utf8_lossy(other)),
    }
}

#[tokio::test]
async fn placement_rows_hold() {
    for row in ROWS {
        for (path, expected) in row.expected {
            let observer = Teller::default();
            let layer = DeferLayer::new().observer(observer.clone());
            let seen = observe((row.app)(layer.clone()), &layer, &observer, path).await;
            let expected =
                expected.map(|(path, route)| (path.to_owned(), route.map(str::to_owned)));
            assert_eq!(seen, expected, "{}: {path}", row.placement);
        }
    }
}

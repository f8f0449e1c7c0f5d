//! Where the layer is put, and what it covers and knows there: each row of the first table in
//! `docs/layer-order.md` is a case.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::convert::Infallible;

use axum::{Router, extract::Request, response::Response, routing::get};
use axum_defer::{DeferLayer, DeferredCallbackCollection, defer};
use tower::{Layer, Service, make::Shared};
use tower_http::normalize_path::NormalizePathLayer;

use crate::support::{
    RawClient,
    beside::{Teller, Told},
    in_time, listen,
};

/// `deferred`, or why not.
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

fn observed() -> (DeferLayer, Teller) {
    let teller = Teller::default();
    (DeferLayer::new().observer(teller.clone()), teller)
}

/// What came of `path`: the path and the route that observers were told, if there was a scope.
async fn told<S, B>(
    service: S,
    layer: &DeferLayer,
    teller: &Teller,
    path: &str,
) -> Option<(String, Option<String>)>
where
    S: Service<Request, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S: Sync,
    S::Future: Send,
    B: http_body::Body<Data: Send, Error: Into<axum::BoxError>> + Send + 'static,
{
    let (listener, address) = listen().await;
    let server =
        tokio::spawn(async move { axum_defer::serve(listener, Shared::new(service)).await });
    let mut client = RawClient::connect(address).await;
    client.get(path).await;
    let body = in_time(client.response(false)).await.unwrap().body;
    in_time(layer.handle().wait_idle()).await;
    server.abort();
    match &*body {
        b"no scope" => None,
        b"deferred" => {
            let Told { path, route, .. } = teller.told();
            Some((path, route))
        }
        other => panic!("{}", String::from_utf8_lossy(other)),
    }
}

fn known(path: &str, route: Option<&str>) -> Option<(String, Option<String>)> {
    Some((path.to_owned(), route.map(str::to_owned)))
}

const ROUTE: Option<&str> = Some("/users/{id}");

#[tokio::test]
async fn a_router_s_layer_covers_its_routes_and_its_fallback_and_knows_the_route() {
    let (layer, teller) = observed();
    let app = routes().layer(layer.clone());
    let user = told(app.clone(), &layer, &teller, "/users/7").await;
    assert_eq!(user, known("/users/7", ROUTE));
    let none = told(app, &layer, &teller, "/none").await;
    assert_eq!(none, known("/none", None));
}

#[tokio::test]
async fn a_route_added_after_the_layer_is_not_covered() {
    let (layer, teller) = observed();
    let app = routes().layer(layer.clone()).route("/late", get(defers));
    assert_eq!(told(app, &layer, &teller, "/late").await, None);
}

#[tokio::test]
async fn a_route_layer_leaves_the_fallback_alone() {
    let (layer, teller) = observed();
    let app = routes().route_layer(layer.clone());
    let user = told(app.clone(), &layer, &teller, "/users/7").await;
    assert_eq!(user, known("/users/7", ROUTE));
    assert_eq!(told(app, &layer, &teller, "/none").await, None);
}

#[tokio::test]
async fn the_layer_of_one_route_covers_that_one() {
    let (layer, teller) = observed();
    let app = routes().route("/one", get(defers).layer(layer.clone()));
    let one = told(app.clone(), &layer, &teller, "/one").await;
    assert_eq!(one, known("/one", Some("/one")));
    assert_eq!(told(app, &layer, &teller, "/users/7").await, None);
}

#[tokio::test]
async fn in_a_nested_router_the_path_and_the_route_are_whole() {
    let (layer, teller) = observed();
    let app = Router::new().nest("/api", routes().layer(layer.clone()));
    let user = told(app, &layer, &teller, "/api/users/7").await;
    assert_eq!(user, known("/api/users/7", Some("/api/users/{id}")));
}

#[tokio::test]
async fn around_the_router_everything_is_covered_and_no_route_is_known() {
    let (layer, teller) = observed();
    let app = layer.layer(Router::new().nest("/api", routes()).fallback(defers));
    for path in ["/api/users/7", "/none"] {
        let seen = told(app.clone(), &layer, &teller, path).await;
        assert_eq!(seen, known(path, None));
    }
}

#[tokio::test]
async fn a_path_is_told_as_it_is_after_it_was_normalised_outside() {
    let normalise = NormalizePathLayer::trim_trailing_slash();
    let (layer, teller) = observed();
    let inside: Router = routes().layer(layer.clone());
    let seen = told(normalise.layer(inside), &layer, &teller, "/users/7/").await;
    assert_eq!(seen, known("/users/7", ROUTE));

    let outside = layer.layer(normalise.layer(routes()));
    let seen = told(outside, &layer, &teller, "/users/7/").await;
    assert_eq!(seen, known("/users/7/", None));
}

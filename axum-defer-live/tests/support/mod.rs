//! Requests to the page.

#![allow(dead_code, reason = "every test binary uses a part of it")]

use std::{net::SocketAddr, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::{ConnectInfo, Request},
    http::{Method, StatusCode},
    response::Response,
};
use axum_defer_live::Live;
use http_body_util::BodyExt;
use serde_json::Value;
use tower::ServiceExt;

pub(crate) const LOOPBACK: &str = "127.0.0.1:5000";
/// An address from a block for documentation.
pub(crate) const REMOTE: &str = "203.0.113.9:5000";

pub(crate) const PATHS: [&str; 6] = [
    "/admin/deferred",
    "/admin/deferred/view",
    "/admin/deferred/style.css",
    "/admin/deferred/snapshot.json",
    "/admin/deferred/events",
    "/admin/deferred/missing",
];

/// An app without traffic, whose page is at the prefix of [`PATHS`].
pub(crate) fn empty() -> Router {
    Router::new().nest("/admin/deferred", Live::new().loopback_router())
}

pub(crate) async fn in_time<F: Future>(future: F) -> F::Output {
    match tokio::time::timeout(Duration::from_secs(60), future).await {
        Ok(output) => output,
        Err(_) => panic!("the test hangs"),
    }
}

pub(crate) fn request(method: Method, path: &str, peer: Option<&str>) -> Request {
    let mut request = Request::new(Body::empty());
    *request.method_mut() = method;
    *request.uri_mut() = path.parse().unwrap();
    if let Some(peer) = peer {
        let peer: SocketAddr = peer.parse().unwrap();
        request.extensions_mut().insert(ConnectInfo(peer));
    }
    request
}

/// A GET from this machine with these headers.
pub(crate) fn get_with(path: &str, headers: &[(&'static str, &str)]) -> Request {
    let mut request = request(Method::GET, path, Some(LOOPBACK));
    for (name, value) in headers {
        request.headers_mut().insert(*name, value.parse().unwrap());
    }
    request
}

pub(crate) async fn send(app: &Router, request: Request) -> Response {
    in_time(app.clone().oneshot(request)).await.unwrap()
}

pub(crate) async fn text(response: Response) -> String {
    let body = in_time(response.into_body().collect()).await.unwrap();
    String::from_utf8(body.to_bytes().to_vec()).unwrap()
}

/// Returns the body of a GET from this machine.
pub(crate) async fn get(app: &Router, path: &str) -> String {
    let response = send(app, get_with(path, &[])).await;
    assert_eq!(response.status(), StatusCode::OK, "{path}");
    text(response).await
}

pub(crate) async fn get_json(app: &Router, path: &str) -> Value {
    serde_json::from_str(&get(app, path).await).unwrap()
}

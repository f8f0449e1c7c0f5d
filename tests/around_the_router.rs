//! A layer around the whole router, in the place of `Router::layer`: half the price, and outside of
//! what the router does, so that it sees every request and none of the routes.

mod support;

use std::{convert::Infallible, net::SocketAddr, sync::Arc};

use axum::{
    Router,
    body::Body,
    extract::{ConnectInfo, MatchedPath, Request},
    http::StatusCode,
    routing::get,
};
use axum_defer::{CallbackInfo, DeferLayer, DeferObserver, defer, serve::serve};
use support::{in_time, listen};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
};
use tower::Layer;

/// Tells what ran, of which route it knows.
struct Told(mpsc::UnboundedSender<(String, Option<String>)>);

impl DeferObserver for Told {
    fn registered(&self, callback: &CallbackInfo<'_>) {
        let request = callback.request().expect("it belongs to a request");
        let route = request.route().map(str::to_owned);
        self.0.send((request.path().to_owned(), route)).unwrap();
    }
}

async fn defers() -> &'static str {
    defer(async {});
    "hello"
}

fn app() -> Router {
    let nested = Router::new().route("/{id}", get(defers));
    Router::new()
        .route("/", get(defers))
        .nest("/users", nested)
        .fallback(|| async {
            defer(async {}).always();
            (StatusCode::NOT_FOUND, "nothing here")
        })
}

async fn request(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).await.unwrap();
    response
}

#[tokio::test]
async fn it_works_with_serve_and_sees_routes_nested_routers_and_fallbacks() {
    let (listener, address) = listen().await;
    let (told, mut heard) = mpsc::unbounded_channel();
    let layer = DeferLayer::new().observer(Told(told));
    let handle = layer.handle();
    let server = serve(listener, layer.layer(app()));
    let server = tokio::spawn(async move { server.await });

    for (path, status) in [("/", "200 OK"), ("/users/7", "200 OK"), ("/no", "404")] {
        let response = in_time(request(address, path)).await;
        assert!(
            response.starts_with(&format!("HTTP/1.1 {status}")),
            "{response}"
        );
        // It is not routed yet when it comes to the layer.
        let callback = in_time(heard.recv()).await;
        assert_eq!(callback, Some((path.to_owned(), None)));
        in_time(handle.wait_idle()).await;
    }
    server.abort();
}

#[tokio::test]
async fn handlers_inside_still_know_their_route_and_with_router_layer_the_layer_does_too() {
    let (told, mut heard) = mpsc::unbounded_channel();
    let layer = DeferLayer::new().observer(Told(told));
    let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
    let app = || {
        let seen = seen.clone();
        Router::new().route(
            "/users/{id}",
            get(async move |route: MatchedPath| {
                seen.lock().unwrap().push(route.as_str().to_owned());
                defers().await
            }),
        )
    };
    let (around, address_around) = listen().await;
    let (inside, address_inside) = listen().await;
    let around = serve(around, layer.layer(app()));
    let inside = serve(inside, app().layer(layer));
    let servers = [
        tokio::spawn(async move { around.await }),
        tokio::spawn(async move { inside.await }),
    ];
    let route = "/users/{id}".to_owned();
    for (address, known) in [
        (address_around, None),
        (address_inside, Some(route.clone())),
    ] {
        in_time(request(address, "/users/7")).await;
        let callback = in_time(heard.recv()).await;
        assert_eq!(callback, Some(("/users/7".to_owned(), known)));
    }
    assert_eq!(*seen.lock().unwrap(), [route.clone(), route]);
    servers.into_iter().for_each(|server| server.abort());
}

#[tokio::test]
async fn connect_info_reaches_the_handlers() {
    let (listener, address) = listen().await;
    let (sender, mut receiver) = mpsc::unbounded_channel();
    let handler = get(async move |ConnectInfo(peer): ConnectInfo<SocketAddr>| {
        defer(async move { sender.send(peer.ip()).unwrap() });
        "hello"
    });
    let app = DeferLayer::new().layer(Router::new().route("/", handler));
    let app = axum::ServiceExt::<Request>::into_make_service_with_connect_info::<SocketAddr>(app);
    let server = serve(listener, app);
    let server = tokio::spawn(async move { server.await });
    let response = in_time(request(address, "/")).await;
    assert!(response.starts_with("HTTP/1.1 200"), "{response}");
    assert_eq!(in_time(receiver.recv()).await, Some(address.ip()));
    server.abort();
}

#[tokio::test]
async fn a_router_may_be_nested_in_it_as_a_service() {
    let (sender, mut receiver) = mpsc::unbounded_channel();
    let inner = Router::new().route(
        "/",
        get(async move || {
            defer(async move { sender.send(()).unwrap() });
            "hello"
        }),
    );
    let around = DeferLayer::new().layer(inner);
    let outer = Router::new().nest_service("/inner", around);
    let request = Request::get("/inner/").body(Body::empty()).unwrap();
    let response = tower::ServiceExt::oneshot(outer, request).await;
    let Ok::<_, Infallible>(response) = response;
    let body = http_body_util::BodyExt::collect(response.into_body()).await;
    assert_eq!(body.unwrap().to_bytes(), "hello");
    assert_eq!(in_time(receiver.recv()).await, Some(()));
}

//! `DeferLayer` in `Router::layer` and around the router, under `axum_defer::serve` and `axum::serve`.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    future::IntoFuture,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    extract::{ConnectInfo, MatchedPath},
    handler::Handler,
    http::StatusCode,
    middleware::{Next, from_fn},
    response::Response,
    routing::get,
};
use axum_defer::{
    CallbackInfo, Completion, DeferLayer, DeferObserver, Finished, Level, ScopeInfo, defer,
    serve::{Serve, WithGracefulShutdown},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{mpsc, oneshot},
    task::JoinHandle,
};

use crate::support::{self, RawClient, in_time, listen, log, subscriber};

/// For what never ends.
const SHORT: Duration = Duration::from_millis(20);

/// What an observer is told of a callback: its name, the path of its request, and the route; and
/// what has decided the request.
type Told = (String, String, Option<String>, Level);

struct Observer {
    decided: Mutex<Option<Level>>,
    told: mpsc::UnboundedSender<Told>,
}

impl DeferObserver for Observer {
    fn completed(&self, _: &ScopeInfo, completion: &Completion) {
        *self.decided.lock().unwrap() = Some(completion.level());
    }

    fn finished(&self, callback: &CallbackInfo<'_>, _: &Finished<'_>) {
        let request = callback.request().unwrap();
        let told = (
            callback.name().unwrap().to_owned(),
            request.path().to_owned(),
            request.route().map(str::to_owned),
            self.decided.lock().unwrap().unwrap(),
        );
        self.told.send(told).unwrap();
    }
}

fn observed() -> (DeferLayer, mpsc::UnboundedReceiver<Told>) {
    let (sender, told) = mpsc::unbounded_channel();
    let observer = Observer {
        decided: Mutex::default(),
        told: sender,
    };
    (DeferLayer::new().observer(observer), told)
}

fn app() -> Router {
    async fn show(route: MatchedPath) -> String {
        defer(async {}).name("shown");
        route.as_str().to_owned()
    }
    Router::new()
        .route("/plain", get(|| async { "plain" }))
        .route("/orders/{id}", get(show))
        .nest("/api", Router::new().route("/users/{id}", get(show)))
        .fallback(|| async {
            defer(async {}).name("missing").always();
            (StatusCode::NOT_FOUND, "nothing here")
        })
}

async fn ask(address: SocketAddr, path: &str) -> (u16, String) {
    let mut client = RawClient::connect(address).await;
    client.get(path).await;
    let response = in_time(client.response(false)).await.unwrap();
    let body = String::from_utf8(response.body).unwrap();
    (response.status, body)
}

/// Asks for everything in the app, and checks what the client and the observer get.
async fn serves_and_tells(
    address: SocketAddr,
    mut told: mpsc::UnboundedReceiver<Told>,
    knows_routes: bool,
    level: Level,
) {
    // Had it deferred something, that would be told first.
    assert_eq!(ask(address, "/plain").await, (200, "plain".into()));
    for (path, route) in [
        ("/orders/7", "/orders/{id}"),
        ("/api/users/3", "/api/users/{id}"),
    ] {
        assert_eq!(ask(address, path).await, (200, route.into()));
        let route = knows_routes.then(|| route.to_owned());
        let expected = ("shown".to_owned(), path.to_owned(), route, level);
        assert_eq!(in_time(told.recv()).await.unwrap(), expected);
    }
    for path in ["/nowhere", "/api/nowhere"] {
        assert_eq!(ask(address, path).await, (404, "nothing here".into()));
        let expected = ("missing".to_owned(), path.to_owned(), None, level);
        assert_eq!(in_time(told.recv()).await.unwrap(), expected);
    }
}

#[tokio::test]
async fn serve_with_router_layer_has_route() {
    let (layer, told) = observed();
    let (listener, address) = listen().await;
    tokio::spawn(axum_defer::serve(listener, app().layer(layer)).into_future());
    serves_and_tells(address, told, true, Level::Flushed).await;
}

#[tokio::test]
async fn serve_with_outer_layer_has_path() {
    let (layer, told) = observed();
    let (listener, address) = listen().await;
    tokio::spawn(axum_defer::serve(listener, layer.layer(app())).into_future());
    serves_and_tells(address, told, false, Level::Flushed).await;
}

#[tokio::test]
async fn axum_serve_with_router_layer_has_route() {
    let (layer, told) = observed();
    let (listener, address) = listen().await;
    tokio::spawn(axum::serve(listener, app().layer(layer)).into_future());
    serves_and_tells(address, told, true, Level::HandedOff).await;
}

#[tokio::test]
async fn axum_serve_with_outer_layer_has_path() {
    let (layer, told) = observed();
    let (listener, address) = listen().await;
    tokio::spawn(axum::serve(listener, layer.layer(app())).into_future());
    serves_and_tells(address, told, false, Level::HandedOff).await;
}

#[tokio::test]
async fn unknown_route_response_is_unchanged() {
    let bare = Router::new().route("/", get(|| async { "hello" }));
    let (listener, address) = listen().await;
    tokio::spawn(axum_defer::serve(listener, DeferLayer::new().layer(bare)).into_future());
    assert_eq!(ask(address, "/").await, (200, "hello".into()));
    assert_eq!(ask(address, "/nowhere").await, (404, String::new()));
    let mut client = RawClient::connect(address).await;
    client.send("POST / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let response = in_time(client.response(false)).await.unwrap();
    assert_eq!(response.status, 405);
}

/// Has a server answer the client with its own address, which a callback gets too.
async fn knows_its_client(address: SocketAddr, mut clients: mpsc::UnboundedReceiver<SocketAddr>) {
    let stream = TcpStream::connect(address).await.unwrap();
    let own = stream.local_addr().unwrap();
    let io = hyper_util::rt::TokioIo::new(stream);
    let (mut client, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
    tokio::spawn(connection);
    let request = support::get::<http_body_util::Empty<&[u8]>>("/");
    let response = in_time(client.send_request(request)).await.unwrap();
    let body = http_body_util::BodyExt::collect(response.into_body()).await;
    assert_eq!(body.unwrap().to_bytes(), own.to_string());
    assert_eq!(in_time(clients.recv()).await, Some(own));
}

fn answers_with_the_client() -> (Router, mpsc::UnboundedReceiver<SocketAddr>) {
    let (sender, clients) = mpsc::unbounded_channel();
    let app = Router::new().route(
        "/",
        get(
            move |ConnectInfo(client): ConnectInfo<SocketAddr>| async move {
                defer(async move { sender.send(client).unwrap() });
                client.to_string()
            },
        ),
    );
    (app, clients)
}

#[tokio::test]
async fn layer_wraps_router_with_connect_info() {
    let (app, clients) = answers_with_the_client();
    let app = app.into_make_service_with_connect_info::<SocketAddr>();
    let (listener, address) = listen().await;
    tokio::spawn(axum_defer::serve(listener, DeferLayer::new().layer(app)).into_future());
    knows_its_client(address, clients).await;
}

#[tokio::test]
async fn axum_serve_gives_connect_info() {
    let (app, clients) = answers_with_the_client();
    let app = app.into_make_service_with_connect_info::<SocketAddr>();
    let (listener, address) = listen().await;
    tokio::spawn(axum::serve(listener, DeferLayer::new().layer(app)).into_future());
    knows_its_client(address, clients).await;
}

async fn runs(address: SocketAddr, mut ran: mpsc::UnboundedReceiver<&'static str>) {
    assert_eq!(ask(address, "/").await, (200, "hello".into()));
    assert_eq!(in_time(ran.recv()).await, Some("ran"));
}

#[tokio::test]
async fn layer_wraps_any_service() {
    macro_rules! around {
        ($serve:path, $app:expr) => {{
            let (sender, ran) = mpsc::unbounded_channel();
            let handler = move || async move {
                defer(async move { sender.send("ran").unwrap() });
                "hello"
            };
            let (listener, address) = listen().await;
            #[allow(clippy::redundant_closure_call)]
            let app = $app(handler);
            tokio::spawn($serve(listener, DeferLayer::new().layer(app)).into_future());
            runs(address, ran).await;
        }};
    }
    macro_rules! around_everything {
        ($serve:path) => {
            around!($serve, |handler| get(handler));
            around!($serve, |handler| get(handler).into_make_service());
            around!($serve, |handler| Handler::with_state(handler, ()));
            around!($serve, |handler| Router::new().route("/", get(handler)));
            around!($serve, |handler| Router::new()
                .route("/", get(handler))
                .into_make_service());
            around!($serve, |handler| DeferLayer::new()
                .layer(Router::new().route("/", get(handler))));
        };
    }
    around_everything!(axum_defer::serve);
    around_everything!(axum::serve);
}

/// With `Router::layer` it would have to be added before the layer.
#[tokio::test]
async fn middleware_of_router_may_defer() {
    let (sender, mut ran) = mpsc::unbounded_channel();
    let refuses = from_fn(move |request: axum::extract::Request, next: Next| {
        let sender = sender.clone();
        async move {
            defer(async move { sender.send("ran").unwrap() }).always();
            if request.uri().path() == "/refused" {
                return Response::builder().status(403).body("no".into()).unwrap();
            }
            next.run(request).await
        }
    });
    let (listener, address) = listen().await;
    let app = DeferLayer::new().layer(app().layer(refuses));
    tokio::spawn(axum_defer::serve(listener, app).into_future());
    for (path, status) in [("/plain", 200), ("/refused", 403), ("/nowhere", 404)] {
        assert_eq!(ask(address, path).await.0, status);
        assert_eq!(in_time(ran.recv()).await, Some("ran"));
    }
}

fn stoppable<M, S, B>(
    server: Serve<TcpListener, M, S, B>,
) -> (
    oneshot::Sender<()>,
    WithGracefulShutdown<TcpListener, M, S, B, impl Future<Output = ()> + Send + 'static>,
) {
    let (stop, stopped) = oneshot::channel();
    let server = server.with_graceful_shutdown(async move { stopped.await.unwrap() });
    (stop, server)
}

#[tokio::test]
async fn shutdown_waits_for_callbacks() {
    let (go_on, may_go_on) = oneshot::channel::<()>();
    let may_go_on = Arc::new(Mutex::new(Some(may_go_on)));
    let app = Router::new().route(
        "/",
        get(move || async move {
            let may_go_on = may_go_on.lock().unwrap().take().unwrap();
            defer(async move { may_go_on.await.unwrap() });
            "hello"
        }),
    );
    let (listener, address) = listen().await;
    let (stop, server) = stoppable(axum_defer::serve(listener, DeferLayer::new().layer(app)));
    let server: JoinHandle<_> = tokio::spawn(server.into_future());
    assert_eq!(ask(address, "/").await, (200, "hello".into()));
    stop.send(()).unwrap();
    support::until_refused(address).await;
    assert!(!server.is_finished());
    go_on.send(()).unwrap();
    let report = in_time(server).await.unwrap().unwrap();
    assert!(report.is_complete(), "{report}");
    assert_eq!(report.succeeded, 1);
}

/// Nobody has the layer any more, and nobody a handle: the server alone asks.
#[tokio::test]
async fn shutdown_report_names_unfinished() {
    let (started, mut has_started) = mpsc::unbounded_channel();
    let app = Router::new().route(
        "/",
        get(move || async move {
            defer(async move {
                started.send(()).unwrap();
                std::future::pending::<()>().await;
            })
            .name("stuck");
            defer(async {}).name("behind it");
            "hello"
        }),
    );
    let (listener, address) = listen().await;
    let (stop, server) = stoppable(axum_defer::serve(listener, DeferLayer::new().layer(app)));
    let server = server.drain_timeout(SHORT);
    let server: JoinHandle<_> = tokio::spawn(server.into_future());
    assert_eq!(ask(address, "/").await, (200, "hello".into()));
    in_time(has_started.recv()).await.unwrap();
    stop.send(()).unwrap();
    let report = in_time(server).await.unwrap().unwrap();
    let unfinished = report.unfinished.iter();
    let unfinished: Vec<_> = unfinished
        .map(|callback| (callback.name(), callback.is_running()))
        .collect();
    assert_eq!(
        unfinished,
        [(Some("stuck"), true), (Some("behind it"), false)]
    );
}

/// Of two servers of one app, whose layer nobody has any more, one drains.
#[tokio::test]
async fn report_covers_other_server() {
    let stuck = get(|| async {
        defer(std::future::pending::<()>());
        "hello"
    });
    let app = DeferLayer::new().layer(Router::new().route("/", stuck));
    let (listener, other) = listen().await;
    tokio::spawn(axum_defer::serve(listener, app.clone()).into_future());
    let (listener, address) = listen().await;
    let (stop, server) = stoppable(axum_defer::serve(listener, app));
    let server = server.drain_timeout(SHORT);
    let server: JoinHandle<_> = tokio::spawn(server.into_future());
    for address in [other, address] {
        assert_eq!(ask(address, "/").await, (200, "hello".into()));
    }
    stop.send(()).unwrap();
    let report = in_time(server).await.unwrap().unwrap();
    let left = report.unfinished.len();
    assert_eq!((left, report.is_complete()), (2, false), "{report}");
}

/// The line that a callback of a request for `/orders/7` logs.
#[cfg(feature = "tracing")]
async fn logged(serve: impl AsyncFnOnce(TcpListener, DeferLayer, Router)) -> String {
    let log = log::Log::default();
    let subscriber = tracing_subscriber::fmt()
        .with_writer(log.clone())
        .with_ansi(false)
        .finish();
    let _listening = subscriber::listen(subscriber);
    let layer = DeferLayer::new();
    let deferred = layer.handle();
    let app = Router::new().route(
        "/orders/{id}",
        get(|| async {
            let _request = tracing::info_span!("request").entered();
            defer(async { tracing::info!("in a callback") });
            "hello"
        }),
    );
    let (listener, address) = listen().await;
    serve(listener, layer, app).await;
    assert_eq!(ask(address, "/orders/7").await, (200, "hello".into()));
    in_time(deferred.wait_idle()).await;
    log.line("in a callback")
}

#[cfg(feature = "tracing")]
#[tokio::test]
async fn span_has_route_or_path() {
    let inside = logged(async |listener, layer, app| {
        tokio::spawn(axum_defer::serve(listener, app.layer(layer)).into_future());
    });
    let line = inside.await;
    assert!(line.contains(r#"path="/orders/{id}""#), "{line}");
    let around = logged(async |listener, layer, app| {
        tokio::spawn(axum_defer::serve(listener, layer.layer(app)).into_future());
    });
    let line = around.await;
    assert!(line.contains(r#"path="/orders/7""#), "{line}");
}

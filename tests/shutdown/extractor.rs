//! The extractor `Shutdown`: endless streams and sockets end when the server shuts down, and the server
//! waits until it is dropped.

#![allow(clippy::unwrap_used)]

use std::{convert::Infallible, future::Future, net::SocketAddr, time::Duration};

use axum::{
    Router,
    extract::Request,
    http::StatusCode,
    middleware::{self, Next},
    response::{
        Response,
        sse::{Event, Sse},
    },
    routing::get,
};
use axum_defer::{Completion, DeferLayer, Delivery, Shutdown, defer, serve};
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt, stream};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::{
    net::TcpStream,
    sync::{mpsc, oneshot},
};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{
        Message,
        protocol::{CloseFrame, frame::coding::CloseCode},
    },
};

use crate::support::{
    self,
    gate::Gate,
    in_time,
    serving::{LONG, Serving},
    until_refused,
    websocket::{WebSocket, upgrade},
};

/// Short, and nothing depends on how long it takes: it is for what never ends.
const SHORT: Duration = Duration::from_millis(20);

async fn events(
    shutdown: Shutdown,
) -> Sse<impl futures_util::Stream<Item = Result<Event, Infallible>>> {
    let first = stream::iter([Ok(Event::default().data("first"))]);
    let last = stream::iter([Ok(Event::default().data("goodbye"))]);
    let events = first.chain(stream::pending()).take_until(shutdown);
    Sse::new(events.chain(last))
}

/// Awaits a response over a connection of its own; the task is over when that is closed, and in
/// an error if it was not closed well.
async fn open(
    address: SocketAddr,
    path: &str,
    is_http2: bool,
) -> (
    http::Response<Incoming>,
    tokio::task::JoinHandle<hyper::Result<()>>,
) {
    let stream = TokioIo::new(TcpStream::connect(address).await.unwrap());
    let request = Request::get(format!("http://a{path}"))
        .header("host", "a")
        .body(Full::<Bytes>::default())
        .unwrap();
    if is_http2 {
        let executor = hyper_util::rt::TokioExecutor::new();
        let (mut client, connection) = hyper::client::conn::http2::handshake(executor, stream)
            .await
            .unwrap();
        let connection = tokio::spawn(connection);
        let response = client.send_request(request).await.unwrap();
        // The client's end of the connection would end with it.
        tokio::spawn(async move {
            std::future::pending::<()>().await;
            drop(client);
        });
        (response, connection)
    } else {
        let (mut client, connection) = hyper::client::conn::http1::handshake(stream).await.unwrap();
        let connection = tokio::spawn(connection);
        (client.send_request(request).await.unwrap(), connection)
    }
}

#[tokio::test]
async fn sse_streams_end_at_shutdown() {
    for is_http2 in [false, true] {
        let (sender, mut completions) = mpsc::unbounded_channel();
        let handler = move |shutdown: Shutdown| {
            defer(move |completion: Completion| async move { sender.send(completion) });
            events(shutdown)
        };
        let app = Router::new()
            .route("/", get(handler))
            .layer(DeferLayer::new());
        let (server, address) = Serving::start(app, LONG).await;
        let (response, connection) = open(address, "/", is_http2).await;
        let mut body = response.into_body();
        let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(&first[..], b"data: first\n\n");

        let report = server.stop();
        // Whole, with the end that the protocol has for it.
        let rest = in_time(body.collect()).await.unwrap().to_bytes();
        assert_eq!(&rest[..], b"data: goodbye\n\n");
        in_time(connection).await.unwrap().unwrap();
        let report = in_time(report).await.unwrap();
        assert!(report.is_complete() && report.succeeded == 1, "{report}");
        let completion = completions.recv().await.unwrap();
        assert_eq!(completion.delivery(), Delivery::Complete);
    }
}

type Client = WebSocketStream<MaybeTlsStream<TcpStream>>;

async fn connect(address: SocketAddr, path: &str) -> Client {
    let (client, _) = connect_async(format!("ws://{address}{path}"))
        .await
        .unwrap();
    client
}

/// Says hello, and goodbye when the server stops; then waits for the gate.
async fn talk(mut socket: WebSocket, mut shutdown: Shutdown, gate: Gate) {
    socket.send(Message::text("hello")).await.unwrap();
    loop {
        tokio::select! {
            message = socket.next() => match message {
                Some(Ok(message)) => socket.send(message).await.unwrap(),
                _ => return,
            },
            () = &mut shutdown => {
                let goodbye = CloseFrame { code: CloseCode::Away, reason: "going away".into() };
                socket.send(Message::Close(Some(goodbye))).await.unwrap();
                break;
            }
        }
    }
    gate.pass().await;
    drop(shutdown);
}

#[tokio::test]
async fn websockets_are_closed_at_shutdown() {
    let (gate, mut entries) = Gate::new();
    let in_task = gate.clone();
    let app = Router::new().route(
        "/",
        get(|shutdown: Shutdown, request: Request| async move {
            upgrade(request, |socket| talk(socket, shutdown, in_task))
        }),
    );
    let (server, address) = Serving::start(app, LONG).await;
    let mut client = connect(address, "/").await;
    assert_eq!(client.next().await.unwrap().unwrap(), "hello".into());
    client.send("echo".into()).await.unwrap();
    assert_eq!(client.next().await.unwrap().unwrap(), "echo".into());

    let report = server.stop();
    let Message::Close(Some(frame)) = in_time(client.next()).await.unwrap().unwrap() else {
        panic!("no close frame");
    };
    assert_eq!(frame.reason, "going away");
    in_time(entries.recv()).await.unwrap();
    until_refused(address).await;
    assert!(!report.is_finished(), "the task is not over");
    gate.open();
    let report = in_time(report).await.unwrap();
    assert!(report.is_complete(), "{report}");
}

/// A socket that is open as long as its client is, and what it has of the request.
async fn idle<T>(mut socket: WebSocket, held: T) {
    socket.send(Message::text("hello")).await.unwrap();
    while let Some(Ok(_)) = socket.next().await {}
    drop(held);
}

#[tokio::test]
async fn held_shutdowns_are_counted() {
    let app = Router::new()
        .route(
            "/two",
            get(|shutdown: Shutdown, request: Request| async move {
                upgrade(request, |socket| idle(socket, [shutdown.clone(), shutdown]))
            }),
        )
        .route(
            "/none",
            get(|request: Request| async move {
                // It is in the request, but was not extracted.
                let extensions = request.extensions().clone();
                upgrade(request, |socket| idle(socket, extensions))
            }),
        );
    let (server, address) = Serving::start(app.clone(), SHORT).await;
    let mut client = connect(address, "/two").await;
    client.next().await.unwrap().unwrap();
    let report = server.stopped().await;
    assert_eq!((report.shutdown_guards, report.aborted_connections), (2, 0));
    assert!(!report.is_complete());

    let (server, address) = Serving::start(app, LONG).await;
    let mut client = connect(address, "/none").await;
    client.next().await.unwrap().unwrap();
    let report = server.stopped().await;
    assert!(report.is_complete(), "{report}");
    client.send("still here".into()).await.unwrap();
}

#[tokio::test]
async fn endless_streams_are_aborted_and_counted() {
    for is_http2 in [false, true] {
        let stream = || async {
            let first = stream::iter([Ok::<_, Infallible>(Event::default().data("first"))]);
            Sse::new(first.chain(stream::pending()))
        };
        let app = Router::new().route("/", get(stream));
        let (server, address) = Serving::start(app, SHORT).await;
        let (response, _connection) = open(address, "/", is_http2).await;
        let mut body = response.into_body();
        body.frame().await.unwrap().unwrap();
        let report = server.stopped().await;
        assert_eq!((report.shutdown_guards, report.aborted_connections), (0, 1));
        assert!(in_time(body.collect()).await.is_err());
    }
}

#[tokio::test]
async fn clones_complete_and_stay_ready() {
    let (sender, mut taken) = mpsc::unbounded_channel();
    let handler = |shutdown: Shutdown| async move { drop(sender.send(shutdown)) };
    let app = Router::new().route("/", get(handler));
    let (server, address) = Serving::start(app, LONG).await;
    let (response, _connection) = open(address, "/", false).await;
    assert_eq!(response.status(), StatusCode::OK);
    let mut shutdown = taken.recv().await.unwrap();
    assert!(!shutdown.is_shutting_down());
    assert_eq!(
        format!("{shutdown:?}"),
        "Shutdown { is_shutting_down: false, .. }"
    );
    let waiting: Vec<_> = (0..100).map(|_| tokio::spawn(shutdown.clone())).collect();
    let mut polled_before = shutdown.clone();
    let waker = futures_util::task::noop_waker();
    let mut cx = std::task::Context::from_waker(&waker);
    assert!(
        std::pin::Pin::new(&mut polled_before)
            .poll(&mut cx)
            .is_pending()
    );
    tokio::task::yield_now().await;

    let report = server.stop();
    for task in waiting {
        in_time(task).await.unwrap();
    }
    assert!(shutdown.is_shutting_down() && shutdown.clone().is_shutting_down());
    in_time(&mut shutdown).await;
    in_time(&mut shutdown).await;
    in_time(polled_before.clone()).await;
    in_time(&mut polled_before).await;
    assert!(!report.is_finished(), "two are held");
    drop((shutdown, polled_before));
    assert!(in_time(report).await.unwrap().is_complete());
}

#[tokio::test]
async fn middleware_can_take_it() {
    let (gate, mut entries) = Gate::new();
    let in_handler = gate.clone();
    let handler = move |shutdown: Option<Shutdown>| async move {
        assert!(!shutdown.as_ref().unwrap().is_shutting_down());
        in_handler.pass().await;
        assert!(shutdown.unwrap().is_shutting_down());
        "answered"
    };
    let layer = middleware::from_fn(|request: Request, next: Next| async move {
        let shutdown = Shutdown::of(request.extensions()).unwrap();
        let mut response: Response = next.run(request).await;
        let stops = if shutdown.is_shutting_down() {
            "yes"
        } else {
            "no"
        };
        response
            .headers_mut()
            .insert("stops", stops.parse().unwrap());
        response
    });
    let app = Router::new().route("/", get(handler)).layer(layer);
    let (server, address) = Serving::start(app, LONG).await;
    let asking = tokio::spawn(open(address, "/", true));
    in_time(entries.recv()).await.unwrap();
    let report = server.stop();
    until_refused(address).await;
    gate.open();
    let (response, _connection) = in_time(asking).await.unwrap();
    assert_eq!(response.headers()["stops"], "yes");
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(&body[..], b"answered");
    assert!(in_time(report).await.unwrap().is_complete());
}

#[tokio::test]
async fn dropping_the_server_notifies() {
    let (sender, mut taken) = mpsc::unbounded_channel();
    let handler = |shutdown: Shutdown| async move { drop(sender.send(shutdown)) };
    let app = Router::new().route("/", get(handler));
    let (listener, address) = support::listen().await;
    let (drop_it, dropped) = oneshot::channel::<()>();
    let server = tokio::spawn(async move {
        tokio::select! {
            _ = serve(listener, app) => unreachable!(),
            _ = dropped => {}
        }
    });
    open(address, "/", false).await;
    let shutdown = taken.recv().await.unwrap();
    assert!(!shutdown.is_shutting_down());
    drop_it.send(()).unwrap();
    in_time(shutdown).await;
    in_time(server).await.unwrap();
}

#[tokio::test]
async fn other_servers_reject_the_extractor() {
    let app = Router::new().route("/", get(|_: Shutdown| async {})).route(
        "/optional",
        get(|shutdown: Option<Shutdown>| async move { shutdown.is_none().to_string() }),
    );
    let server = support::Server::start(app).await;
    let (response, _connection) = open(server.address, "/", false).await;
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    let text = response.into_body().collect().await.unwrap().to_bytes();
    let text = std::str::from_utf8(&text).unwrap();
    assert!(
        text.contains("serve the app with `axum_defer::serve"),
        "{text}"
    );
    let (response, _connection) = open(server.address, "/optional", false).await;
    let text = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(&text[..], b"true");
}

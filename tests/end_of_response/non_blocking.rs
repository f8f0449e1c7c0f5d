//! The client never waits for a callback: not for its response, and not for the next one.

use std::{
    collections::HashSet,
    future::Future,
    io,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

use axum::{Router, body::Body, extract::Request, response::Response, routing::get};
use axum_defer::{DeferHandle, DeferLayer, defer, defer_blocking};
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, stream};
use http_body::Frame;
use http_body_util::BodyExt;
use tokio::{
    sync::{Notify, mpsc},
    task,
};
use tower::{Service, ServiceExt, service_fn};

use crate::support::{self, Server, gate::Gate, in_time};

/// Runs the test on a runtime of each flavour.
fn on_both_runtimes<F: Future>(test: impl Fn() -> F) {
    let mut builders = [
        tokio::runtime::Builder::new_current_thread(),
        tokio::runtime::Builder::new_multi_thread(),
    ];
    for builder in &mut builders {
        let runtime = builder.worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(in_time(test()));
    }
}

/// One connection, of either protocol.
enum Client {
    Http1(support::RawClient),
    Http2(hyper::client::conn::http2::SendRequest<http_body_util::Full<Bytes>>),
}

impl Client {
    async fn both(server: &Server) -> [Self; 2] {
        [
            Self::Http1(server.raw().await),
            Self::Http2(server.http2().await),
        ]
    }

    /// The whole body of a response.
    async fn get(&mut self, path: &str) -> Vec<u8> {
        match self {
            Self::Http1(client) => {
                client.get(path).await;
                client.response(false).await.unwrap().body
            }
            Self::Http2(client) => {
                let response = client.send_request(support::get(path)).await.unwrap();
                response
                    .into_body()
                    .collect()
                    .await
                    .unwrap()
                    .to_bytes()
                    .into()
            }
        }
    }
}

/// The server's one handler answers with hello; its callbacks wait when they have `started`.
async fn responses_come_while_callbacks_run(
    server: &Server,
    started: &mut mpsc::UnboundedReceiver<()>,
    handle: &DeferHandle,
) {
    let mut expected = 0;
    for mut client in Client::both(server).await {
        for _ in 0..3 {
            assert_eq!(client.get("/").await, b"hello");
            // The callback is running before the next request is sent.
            started.recv().await.unwrap();
            expected += 1;
            assert_eq!(handle.running(), expected, "none has ended");
        }
    }
}

#[test]
fn a_callback_that_waits_holds_up_neither_its_response_nor_the_next() {
    on_both_runtimes(|| async {
        let (gate, mut started) = Gate::new();
        let in_handler = gate.clone();
        let layer = DeferLayer::new();
        let handle = layer.handle();
        let app: Router = Router::new()
            .route(
                "/",
                get(async move || {
                    defer(in_handler.clone().pass());
                    "hello"
                }),
            )
            .layer(layer);
        let server = Server::start(app).await;
        responses_come_while_callbacks_run(&server, &mut started, &handle).await;
        gate.open();
        handle.wait_idle().await;
    });
}

#[test]
fn a_callback_that_blocks_its_thread_holds_up_neither_its_response_nor_the_next() {
    on_both_runtimes(|| async {
        let (sender, mut started) = mpsc::unbounded_channel();
        let (open, gate) = std::sync::mpsc::channel::<()>();
        let gate = Arc::new(Mutex::new(gate));
        let layer = DeferLayer::new();
        let handle = layer.handle();
        let app: Router = Router::new()
            .route(
                "/",
                get(async move || {
                    let (sender, gate) = (sender.clone(), gate.clone());
                    defer_blocking(move || {
                        sender.send(()).unwrap();
                        // Until the test drops the other end.
                        assert!(gate.lock().unwrap().recv().is_err());
                    });
                    "hello"
                }),
            )
            .layer(layer);
        let server = Server::start(app).await;
        responses_come_while_callbacks_run(&server, &mut started, &handle).await;
        drop(open);
        handle.wait_idle().await;
    });
}

#[test]
fn a_callback_that_never_ends_does_not_hold_up_a_pipelined_response() {
    on_both_runtimes(|| async {
        let app: Router = Router::new()
            .route(
                "/",
                get(async || {
                    defer(std::future::pending::<()>());
                    "hello"
                }),
            )
            .layer(DeferLayer::new());
        let server = Server::start(app).await;
        let mut client = server.raw().await;
        let request = "GET / HTTP/1.1\r\nhost: localhost\r\n\r\n";
        client.send(&request.repeat(10)).await;
        for _ in 0..10 {
            assert_eq!(client.response(false).await.unwrap().body, b"hello");
        }
    });
}

/// The tasks that polled or dropped any part of a response.
#[derive(Clone, Default)]
struct Tasks(Arc<Mutex<HashSet<task::Id>>>);

impl Tasks {
    fn note(&self) {
        // `axum::serve` drops a connection's parts on its task, or on none at the very end.
        if let Some(id) = task::try_id() {
            self.0.lock().unwrap().insert(id);
        }
    }

    fn take(&self) -> HashSet<task::Id> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        self.note();
    }
}

fn watched_body(tasks: Tasks, ends: bool) -> Body {
    let chunks = stream::poll_fn(move |_| {
        tasks.note();
        Poll::Ready(None::<Result<&str, io::Error>>)
    });
    let chunks = stream::iter([Ok("hello")]).chain(chunks);
    match ends {
        true => Body::from_stream(chunks),
        false => Body::from_stream(chunks.chain(stream::pending())),
    }
}

#[test]
fn callbacks_run_on_a_task_that_is_none_of_the_servers() {
    on_both_runtimes(|| async {
        let servers = Tasks::default();
        let (sender, mut callbacks) = mpsc::unbounded_channel();
        let begun = Arc::new(Notify::new());
        let (in_handler, in_never) = (servers.clone(), begun.clone());
        let app = move |request: Request| {
            let (tasks, begun, sender) = (in_handler.clone(), in_never.clone(), sender.clone());
            async move {
                tasks.note();
                for _ in 0..2 {
                    let sender = sender.clone();
                    defer(async move { sender.send(task::id()).unwrap() }).always();
                }
                Ok::<_, std::convert::Infallible>(match request.uri().path() {
                    "/full" => Response::new(Body::from("hello")),
                    "/stream" => Response::new(watched_body(tasks.clone(), true)),
                    "/stalls" => Response::new(watched_body(tasks.clone(), false)),
                    "/panic" => panic!("on purpose"),
                    _ => {
                        begun.notify_one();
                        std::future::pending().await
                    }
                })
            }
        };
        let layer = DeferLayer::new();
        let app = layer.layer(service_fn(app));
        let server = Server::start(app.map_response(|response| response.map(Body::new))).await;
        for path in ["/full", "/stream", "/stalls", "/never", "/panic"] {
            for http2 in [false, true] {
                if http2 {
                    let mut client = server.http2().await;
                    let response = client.send_request(support::get(path));
                    tokio::select! {
                        response = response => if let Ok(response) = response {
                            let mut body = response.into_body();
                            while path != "/stalls" && body.frame().await.is_some() {}
                            if path == "/stalls" {
                                body.frame().await.unwrap().unwrap();
                            }
                        },
                        () = begun.notified() => {}
                    }
                } else {
                    let mut client = server.raw().await;
                    client.get(path).await;
                    match path {
                        "/stalls" => client.read_until("hello").await,
                        "/never" => begun.notified().await,
                        _ => drop(client.response(false).await),
                    }
                    client.reset();
                }
                let first = callbacks.recv().await.unwrap();
                let second = callbacks.recv().await.unwrap();
                assert_eq!(first, second, "one task for all callbacks of a request");
                layer.handle().wait_idle().await;
                let servers = servers.take();
                assert!(!servers.is_empty());
                assert!(!servers.contains(&first), "{path}, HTTP/2: {http2}");
            }
        }
    });
}

/// A body that is polled, and a callback that would be seen if it ran in between.
async fn nothing_runs_before_the_test_lets_go(handle: &DeferHandle, end: impl FnOnce()) {
    assert_eq!((handle.pending(), handle.running()), (1, 0));
    end();
    // On this runtime, nothing else has run since. The runner may have taken the callback.
    assert_eq!(handle.counts().total(), 1);
    in_time(handle.wait_idle()).await;
    assert_eq!((handle.pending(), handle.running()), (0, 0));
}

#[tokio::test(flavor = "current_thread")]
async fn callbacks_run_neither_in_a_poll_nor_in_a_drop() {
    let layer = DeferLayer::new();
    let handle = layer.handle();
    let body: fn() -> Body = || Body::from("hello");
    let empty: fn() -> Body = Body::empty;
    let error: fn() -> Body = || {
        let error = Err::<Frame<Bytes>, _>(io::Error::other("on purpose"));
        support::frames([error])
    };
    let ends: fn() -> Body = || support::frames([]);
    let call = |body: Option<fn() -> Body>| {
        let service = service_fn(move |_: Request| {
            defer(async {}).always();
            async move {
                match body {
                    Some(body) => Ok(Response::new(body())),
                    None => std::future::pending::<Result<_, std::convert::Infallible>>().await,
                }
            }
        });
        Box::pin(layer.clone().layer(service).call(support::get("/")))
    };

    for body in [body, error, ends] {
        let mut response = call(Some(body)).await.unwrap();
        nothing_runs_before_the_test_lets_go(&handle, || {
            let mut context = Context::from_waker(std::task::Waker::noop());
            let body = Pin::new(response.body_mut());
            assert!(http_body::Body::poll_frame(body, &mut context).is_ready());
        })
        .await;
    }

    let response = call(Some(body)).await.unwrap();
    nothing_runs_before_the_test_lets_go(&handle, || drop(response)).await;

    let mut future = call(Some(empty));
    nothing_runs_before_the_test_lets_go(&handle, || {
        assert!(future.as_mut().now_or_never().is_some());
    })
    .await;

    let mut future = call(None);
    assert!(future.as_mut().now_or_never().is_none());
    nothing_runs_before_the_test_lets_go(&handle, || drop(future)).await;
}

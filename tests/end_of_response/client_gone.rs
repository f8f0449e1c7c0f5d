//! `client_gone()`: a handler that is run to completion learns that nobody waits for its response.

#![allow(clippy::unwrap_used)]

use std::{future::Future, task::Context, time::Duration};

use axum::{Router, routing::get};
use axum_defer::{Completion, DeferLayer, DeferredCallbackCollection, Delivery, defer, serve};
use bytes::Bytes;
use futures_util::{FutureExt, task::noop_waker};
use http_body_util::Full;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{io::AsyncWriteExt, sync::mpsc};

use crate::support::{
    self,
    gate::Gate,
    get as request, in_time,
    serving::{Serving, in_memory},
};

#[tokio::test]
async fn a_handler_and_its_tasks_learn_that_the_client_has_gone_and_go_on() {
    let (started, mut starts) = mpsc::unbounded_channel();
    let (sender, mut completions) = mpsc::unbounded_channel();
    let handler = |deferred: DeferredCallbackCollection| async move {
        assert!(!deferred.is_client_gone());
        let in_a_task = tokio::spawn(deferred.client_gone());
        let mut gone = std::pin::pin!(deferred.client_gone());
        assert!(gone.as_mut().now_or_never().is_none());
        started.send(()).unwrap();
        gone.await;
        in_a_task.await.unwrap();
        assert!(deferred.is_client_gone());
        // It stays so.
        deferred.client_gone().await;
        defer(move |completion: Completion| async move { sender.send(completion) });
        "nobody reads this"
    };
    let layer = DeferLayer::new().run_to_completion();
    let app = Router::new().route("/", get(handler)).layer(layer);
    for is_http2 in [false, true] {
        let (connect, listener) = in_memory();
        tokio::spawn(serve(listener, app.clone()).into_future());
        let io = TokioIo::new(connect.connect());
        // The one drops the connection, the other resets the stream.
        let (asking, _connection) = if is_http2 {
            let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), io);
            let (mut client, connection) = handshake.await.unwrap();
            let connection = tokio::spawn(connection);
            let request = request::<Full<Bytes>>("/");
            let asking = tokio::spawn(async move { client.send_request(request).await.map(drop) });
            (asking, Some(connection))
        } else {
            let handshake = hyper::client::conn::http1::handshake(io);
            let (mut client, connection) = handshake.await.unwrap();
            let request = request::<Full<Bytes>>("/");
            let asking = tokio::spawn(async move {
                tokio::select! {
                    answer = client.send_request(request) => answer.map(drop),
                    end = connection => end,
                }
            });
            (asking, None)
        };
        in_time(starts.recv()).await.unwrap();
        asking.abort();
        let completion = in_time(completions.recv()).await.unwrap();
        assert_ne!(completion.delivery(), Delivery::Complete);
        assert!(completion.status().is_some(), "it was run to completion");
    }
}

#[tokio::test]
async fn under_axum_serve_too() {
    let (started, mut starts) = mpsc::unbounded_channel();
    let (gone, mut has_gone) = mpsc::unbounded_channel();
    let handler = |deferred: DeferredCallbackCollection| async move {
        started.send(()).unwrap();
        deferred.client_gone().await;
        gone.send(()).unwrap();
    };
    let layer = DeferLayer::new().run_to_completion();
    let app = Router::new().route("/", get(handler)).layer(layer);
    let server = support::Server::start(app).await;
    let mut client = server.raw().await;
    client.get("/").await;
    in_time(starts.recv()).await.unwrap();
    drop(client);
    in_time(has_gone.recv()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_the_shutdown_cuts_is_a_client_that_has_gone() {
    let (started, mut starts) = mpsc::unbounded_channel();
    let handler = |deferred: DeferredCallbackCollection| async move {
        started.send(()).unwrap();
        deferred.client_gone().await;
    };
    let layer = DeferLayer::new().run_to_completion();
    let app = Router::new().route("/", get(handler)).layer(layer);
    let (server, connect) = Serving::in_memory(app, Duration::from_secs(10));
    let mut client = connect.connect();
    let get = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";
    client.write_all(get).await.unwrap();
    in_time(starts.recv()).await.unwrap();
    let report = server.stopped().await;
    // Cut at nine tenths of the time, the handler has ended in the rest of it.
    assert_eq!(
        (report.aborted_connections, report.running_handlers),
        (1, 0)
    );
}

#[tokio::test]
async fn nobody_has_gone_once_there_is_a_response_or_where_handlers_go_with_their_clients() {
    for layer in [DeferLayer::new().run_to_completion(), DeferLayer::new()] {
        let (gate, mut entries) = Gate::new();
        let in_handler = gate.clone();
        let (sender, mut collections) = mpsc::unbounded_channel();
        let handler = |deferred: DeferredCallbackCollection| async move {
            sender.send(deferred).unwrap();
            in_handler.pass().await;
            "hello"
        };
        let app = Router::new().route("/", get(handler)).layer(layer.clone());
        let server = support::Server::start(app).await;
        let mut client = server.raw().await;
        client.get("/").await;
        let deferred = in_time(collections.recv()).await.unwrap();
        in_time(entries.recv()).await.unwrap();
        let mut gone = Box::pin(deferred.client_gone());
        gate.open();
        assert_eq!(client.response(false).await.unwrap().body, b"hello");
        drop(client);
        in_time(layer.handle().wait_idle()).await;
        assert!(!deferred.is_client_gone());
        let waker = noop_waker();
        assert!(
            gone.as_mut()
                .poll(&mut Context::from_waker(&waker))
                .is_pending()
        );
    }
}

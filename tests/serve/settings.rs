//! What `axum_defer::serve` makes of its settings, of signals at odd times, and of many clients.

#![allow(clippy::unwrap_used)]

use std::{fs::File, future::ready, process::Command, time::Duration};

use axum::{
    Router,
    extract::Request,
    http::{
        StatusCode,
        header::{CONNECTION, UPGRADE},
    },
    routing::get,
};
use axum_defer::{DeferLayer, defer, serve};
use futures_util::FutureExt;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    net::{TcpListener, TcpSocket},
    sync::{mpsc, oneshot},
};

use crate::support::{
    in_time,
    serving::{Connect, LONG, Serving, in_memory, settle},
};

const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";

fn app() -> Router {
    Router::new().route("/", get(|| async { "hello" }))
}

async fn ask(connect: &Connect) -> DuplexStream {
    let mut client = connect.connect();
    client.write_all(GET).await.unwrap();
    client
}

async fn answer(client: &mut DuplexStream) -> String {
    let mut received = String::new();
    while !received.ends_with("hello") {
        let mut bytes = [0; 512];
        let count = in_time(client.read(&mut bytes)).await.unwrap();
        assert_ne!(count, 0, "closed after {received:?}");
        received += std::str::from_utf8(&bytes[..count]).unwrap();
    }
    received
}

async fn is_answered(client: &mut DuplexStream) -> bool {
    settle().await;
    client.read(&mut [0; 1]).now_or_never().is_some()
}

#[tokio::test]
async fn max_connections_limits_connections() {
    let (connect, listener) = in_memory();
    let server = Serving::on(serve(listener, app()).max_connections(2), LONG);
    let (mut first, mut second) = (ask(&connect).await, ask(&connect).await);
    answer(&mut first).await;
    answer(&mut second).await;
    let (mut third, mut fourth) = (ask(&connect).await, ask(&connect).await);
    assert!(!is_answered(&mut third).await);
    drop(first);
    answer(&mut third).await;
    assert!(!is_answered(&mut fourth).await);
    drop(second);
    answer(&mut fourth).await;

    // The task that waits for a permit also sees the signal.
    let mut waiting = ask(&connect).await;
    assert!(!is_answered(&mut waiting).await);
    assert!(server.stopped().await.is_complete());
}

#[tokio::test]
async fn upgraded_connections_count() {
    let (sender, mut sockets) = mpsc::unbounded_channel();
    let app = app().route(
        "/socket",
        get(|request: Request| async move {
            let upgraded = hyper::upgrade::on(request);
            tokio::spawn(async move { sender.send(upgraded.await.unwrap()).unwrap() });
            let headers = [(CONNECTION, "upgrade"), (UPGRADE, "echo")];
            (StatusCode::SWITCHING_PROTOCOLS, headers)
        }),
    );
    let (connect, listener) = in_memory();
    tokio::spawn(serve(listener, app).max_connections(1).into_future());
    let mut upgraded = connect.connect();
    let handshake =
        "GET /socket HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n";
    upgraded.write_all(handshake.as_bytes()).await.unwrap();
    let socket = in_time(sockets.recv()).await.unwrap();
    let mut next = ask(&connect).await;
    assert!(!is_answered(&mut next).await);
    drop(socket);
    answer(&mut next).await;
}

#[tokio::test]
#[should_panic(expected = "`max_connections(0)` would never accept")]
async fn max_connections_of_0_panics() {
    let (_connect, listener) = in_memory();
    let _ = serve(listener, app()).max_connections(0);
}

#[tokio::test]
async fn an_immediate_signal_stops_the_server() {
    let (connect, listener) = in_memory();
    let mut client = ask(&connect).await;
    let server = serve(listener, app()).with_graceful_shutdown(ready(()));
    let report = in_time(server.drain_timeout(LONG).into_future())
        .await
        .unwrap();
    assert!(report.is_complete(), "{report}");
    assert_eq!(client.read(&mut [0; 1]).await.unwrap(), 0);
}

#[tokio::test]
async fn dropping_the_server_ends_the_shutdown() {
    let (started, mut starts) = mpsc::unbounded_channel();
    let app = Router::new()
        .route(
            "/",
            get(|| async move {
                defer(async {}).always().name("after the cut");
                started.send(()).unwrap();
                std::future::pending::<()>().await;
            }),
        )
        .layer(DeferLayer::new());
    let (connect, listener) = in_memory();
    let (first, first_signal) = oneshot::channel::<()>();
    let (second, second_signal) = oneshot::channel::<()>();
    let server = serve(listener, app)
        .with_graceful_shutdown(async { first_signal.await.unwrap() })
        .drain_timeout(LONG);
    let server = tokio::spawn(async {
        tokio::select! {
            report = server => Some(report),
            _ = second_signal => None,
        }
    });
    let mut client = ask(&connect).await;
    in_time(starts.recv()).await.unwrap();
    first.send(()).unwrap();
    settle().await;
    assert!(!server.is_finished());
    second.send(()).unwrap();
    assert!(in_time(server).await.unwrap().is_none());
    assert_eq!(in_time(client.read(&mut [0; 1])).await.unwrap(), 0);
}

#[tokio::test]
async fn ten_thousand_idle_connections_are_closed() {
    let (connect, listener) = in_memory();
    let server = Serving::on(serve(listener, app()), LONG);
    let mut clients = Vec::new();
    for number in 0..10_000 {
        let mut client = connect.connect_over(256);
        // Some have never said a word, some half a one, and some have been served.
        match number % 10 {
            0 => client.write_all(GET).await.unwrap(),
            1 => client.write_all(&GET[..9]).await.unwrap(),
            _ => {}
        }
        clients.push(client);
    }
    for client in clients.iter_mut().step_by(10) {
        answer(client).await;
    }
    // One more is served beside them.
    answer(&mut ask(&connect).await).await;

    let report = server.stopped().await;
    assert!(report.is_complete(), "{report}");
    for client in &mut clients {
        assert_eq!(in_time(client.read(&mut [0; 1])).await.unwrap(), 0);
    }
}

const FEW_FILES: &str = "AXUM_DEFER_TEST_FEW_FILES";

/// As a test of its own it has nothing to do: it is for a process that may have few files open.
#[tokio::test]
async fn the_part_with_few_files() {
    if std::env::var_os(FEW_FILES).is_none() {
        return;
    }
    let listen = || async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    };
    let (listener, address) = listen().await;
    let (other_listener, other_address) = listen().await;
    let [client, other_client] = [(); 2].map(|()| TcpSocket::new_v4().unwrap());
    tokio::spawn(serve(listener, app()).into_future());
    let other = Serving::on(serve(other_listener, app()), LONG);
    settle().await;

    let mut files = Vec::new();
    let error = loop {
        match File::open("/dev/null") {
            Ok(file) => files.push(file),
            Err(error) => break error,
        }
    };
    assert_eq!(error.raw_os_error(), Some(24), "EMFILE");
    let mut client = client.connect(address).await.unwrap();
    let _other_client = other_client.connect(other_address).await.unwrap();
    client.write_all(GET).await.unwrap();
    settle().await;
    // Neither can accept. The one hears its signal all the same.
    assert!(client.try_read(&mut [0; 1]).is_err());
    assert!(other.stopped().await.is_complete());

    files.clear();
    let mut byte = [0; 1];
    assert_eq!(in_time(client.read(&mut byte)).await.unwrap(), 1);
}

#[test]
#[cfg(unix)]
fn a_server_without_files_recovers() {
    let test = std::env::current_exe().unwrap();
    let status = Command::new("sh")
        .args(["-c", "ulimit -n 64 && exec \"$0\" \"$@\""])
        .arg(test)
        .args(["--exact", "settings::the_part_with_few_files"])
        .env(FEW_FILES, "1")
        .status();
    assert!(status.unwrap().success());
}

#[tokio::test]
async fn without_a_signal_it_never_returns() {
    let (connect, listener) = in_memory();
    let served: String = tokio::select! {
        _ = serve(listener, app()) => unreachable!(),
        served = async { answer(&mut ask(&connect).await).await } => served,
    };
    assert!(served.ends_with("hello"));
    let timeout = Duration::ZERO;
    let (_connect, listener) = in_memory();
    let never = tokio::time::timeout(timeout, serve(listener, app()).into_future()).await;
    assert!(never.is_err());
}

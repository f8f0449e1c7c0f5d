//! The memory that a pending callback retains of its request.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::future::pending;

use crate::support::subscriber::listen;
use axum::{Router, routing::get};
use axum_defer::{DeferLayer, DeferObserver, defer};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    runtime::{Builder, Handle},
};

/// A request of which `size` bytes are in one place.
fn request_of(size: usize, place: &str) -> String {
    let long = "x".repeat(size);
    let (path, id, padding) = match place {
        "path" => (&*long, "abc-123", ""),
        "request id" => ("", &*long, ""),
        "padding" => ("", "abc-123", &*long),
        other => unreachable!("{other}"),
    };
    format!(
        "GET /{path} HTTP/1.1\r\nhost: a\r\nx-request-id: {id}\r\nx-padding: {padding}\r\n\
         connection: close\r\n\r\n"
    )
}

/// Returns the bytes that stay allocated per pending callback, when its connection is closed.
fn retained(layer: &DeferLayer, request: &str) -> f64 {
    const REQUESTS: usize = 20;
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let app: Router = Router::new()
        .route("/{*path}", get(defer_forever))
        .route("/", get(defer_forever))
        .layer(layer.clone());
    let address = runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(axum::serve(listener, app).into_future());
        address
    });
    let mut sent = 0;
    let mut send = |requests: usize| {
        sent += requests;
        runtime.block_on(async {
            for _ in 0..requests {
                let mut client = TcpStream::connect(address).await.unwrap();
                client.write_all(request.as_bytes()).await.unwrap();
                let mut answer = Vec::new();
                client.read_to_end(&mut answer).await.unwrap();
                assert!(answer.ends_with(b"hello"));
            }
            // Besides the callbacks, only the server is left.
            while Handle::current().metrics().num_alive_tasks() > sent + 1 {
                tokio::task::yield_now().await;
            }
        });
    };
    send(5);
    let left = allocation_counter::measure(|| send(REQUESTS));
    left.bytes_current as f64 / REQUESTS as f64
}

async fn defer_forever() -> &'static str {
    // The span of a callback is enabled if the current one is.
    tracing::info_span!("request").in_scope(|| defer(pending::<()>()).name("pending"));
    "hello"
}

struct Ignores;

impl DeferObserver for Ignores {}

/// Checks that requests of 300 kB retain about as much as small ones.
#[track_caller]
fn assert_bounded(retained: impl Fn(&str) -> f64) {
    // A path is kept up to its documented limit of 1,024 bytes. A span has a copy.
    let cases = [
        ("padding", 300_000, 0.0),
        ("request id", 300_000, 0.0),
        ("path", 60_000, 2.0 * 1024.0),
    ];
    for (place, size, limit) in cases {
        let small = retained(&request_of(100, place));
        let large = retained(&request_of(size, place));
        println!("{place}: {small} and {large} bytes");
        let bound = 1.5 * small + limit;
        assert!(large <= bound, "{place}: {small} and {large} bytes");
    }
}

#[test]
fn observed_callback_retains_no_head() {
    assert_bounded(|request| retained(&DeferLayer::new().observer(Ignores), request));
}

#[test]
fn callback_of_a_handle_retains_no_head() {
    assert_bounded(|request| {
        let layer = DeferLayer::new();
        let _deferred = layer.handle();
        retained(&layer, request)
    });
}

#[test]
fn callback_with_a_span_retains_no_head() {
    let _listening = listen(
        tracing_subscriber::fmt()
            .with_writer(std::io::sink)
            .finish(),
    );
    assert_bounded(|request| retained(&DeferLayer::new(), request));
}

//! Memory of callbacks and scopes, measured with a counting allocator. Prints JSON.

use std::{
    alloc::System,
    convert::Infallible,
    future::{Future, IntoFuture, poll_fn},
    io,
    pin::{Pin, pin},
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    task::{Context, Poll},
};

use axum::{Router, body::Body, extract::Request, routing::get};
use axum_defer::{DeferLayer, defer};
use http_body::Body as _;
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use tokio::{
    runtime::{Builder, Runtime},
    task::yield_now,
};
use tower::ServiceExt;
use tracing::Level;

use crate::{duplex::Client, floor::FloorLayer};

#[path = "cpu/duplex.rs"]
mod duplex;
#[path = "cpu/floor.rs"]
mod floor;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Bytes that are allocated now, as requested from the allocator.
fn allocated() -> usize {
    let stats = ALLOCATOR.stats();
    stats.bytes_allocated - stats.bytes_deallocated
}

fn main() {
    let figures = [
        ("size of a scope", size_of_scope()),
        ("pending callback in one scope", pending_callback()),
        (
            "scope with one waiting callback and its task",
            waiting(
                |app| app.layer(DeferLayer::new()),
                || drop(defer(Waits::new())),
            ),
        ),
        (
            "the same, handle held",
            waiting(with_handle, || drop(defer(Waits::new()))),
        ),
        (
            "the same, floor",
            waiting(|app| app.layer(FloorLayer), || floor::push(Waits::new())),
        ),
        (
            "the same future, tokio::spawn",
            waiting(|app| app, || drop(tokio::spawn(Waits::new()))),
        ),
        // The subscriber is installed from here on.
        (
            "over HTTP, INFO subscriber, 100 B of headers",
            waiting_with_headers(100),
        ),
        (
            "over HTTP, INFO subscriber, 300 kB of headers",
            waiting_with_headers(300_000),
        ),
    ];
    let lines: Vec<String> = figures
        .iter()
        .map(|(name, bytes)| format!("  \"{name}\": {bytes}"))
        .collect();
    println!("{{\n{}\n}}", lines.join(",\n"));
}

fn runtime() -> Runtime {
    let runtime = Builder::new_current_thread().enable_time().build();
    runtime.expect("a runtime")
}

/// A future of 32 bytes that never completes.
struct Waits([u64; 4]);

impl Waits {
    fn new() -> Self {
        assert_eq!(size_of::<Self>(), 32);
        Self([0; 4])
    }
}

impl Future for Waits {
    type Output = ();

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        std::hint::black_box(&self.0);
        Poll::Pending
    }
}

/// The type is private, but opening a scope outside of a request allocates it and nothing else. The
/// allocation holds two reference counts as well.
fn size_of_scope() -> usize {
    const REFERENCE_COUNTS: usize = 2 * size_of::<usize>();
    let layer = DeferLayer::new();
    runtime().block_on(async {
        let before = allocated();
        let opened = AtomicUsize::new(0);
        let store = async { opened.store(allocated(), Relaxed) };
        layer.scope(store).await;
        opened.into_inner() - before - REFERENCE_COUNTS
    })
}

fn pending_callback() -> usize {
    const CALLBACKS: usize = 10_000;
    let bytes = AtomicUsize::new(0);
    let layer = DeferLayer::new();
    runtime().block_on(layer.scope(async {
        let before = allocated();
        for _ in 0..CALLBACKS {
            drop(defer(ends_at_once()));
        }
        bytes.store(allocated() - before, Relaxed);
    }));
    bytes.into_inner() / CALLBACKS
}

/// Returns a future of 32 bytes.
fn ends_at_once() -> impl Future<Output = ()> + Send + 'static {
    let captured = std::hint::black_box([1_u64; 3]);
    let work = async move {
        std::hint::black_box(captured);
    };
    assert_eq!(size_of_val(&work), 32);
    work
}

/// Bytes that a request leaves allocated after its response if its callback never ends.
fn waiting(layered: fn(Router) -> Router, start: fn()) -> usize {
    const REQUESTS: usize = 1_000;
    let handler = get(move || async move {
        start();
        "hello"
    });
    let app = layered(Router::new().route("/", handler)).with_state::<()>(());
    runtime().block_on(async {
        request(&app).await;
        let before = allocated();
        for _ in 0..REQUESTS {
            request(&app).await;
        }
        (allocated() - before) / REQUESTS
    })
}

async fn request(app: &Router) {
    let response = app.clone().oneshot(Request::new(Body::empty())).await;
    let Ok::<_, Infallible>(response) = response;
    {
        let mut body = pin!(response.into_body());
        while poll_fn(|cx| body.as_mut().poll_frame(cx)).await.is_some() {}
    }
    yield_now().await;
}

fn with_handle(app: Router) -> Router {
    let layer = DeferLayer::new();
    // Held until the process ends.
    std::mem::forget(layer.handle());
    app.layer(layer)
}

/// Like [`waiting`], but for requests that hyper parsed, under an INFO subscriber.
fn waiting_with_headers(bytes: usize) -> usize {
    const CONNECTIONS: usize = 20;
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(Level::INFO)
        .with_writer(io::sink);
    // Only the first call installs it.
    let _ = subscriber.try_init();
    // hyper accepts 100 headers.
    let value = "v".repeat(10_000.min(bytes));
    let headers: String = (0..bytes.div_ceil(10_000))
        .map(|number| format!("x-header-{number}: {value}\r\n"))
        .collect();
    let request = format!("GET /orders/42 HTTP/1.1\r\nhost: localhost\r\n{headers}\r\n");
    let handler = get(|| async {
        drop(defer(Waits::new()));
        "hello"
    });
    let app = Router::new()
        .route("/orders/{id}", handler)
        .layer(DeferLayer::new());
    runtime().block_on(async {
        connections(&app, 1, &request).await;
        let before = allocated();
        connections(&app, CONNECTIONS, &request).await;
        (allocated() - before) / CONNECTIONS
    })
}

/// Sends a request on each of some connections, and closes them.
async fn connections(app: &Router, count: usize, request: &str) {
    let (mut client, listener) = Client::connect(count);
    let server = tokio::spawn(axum::serve(listener, app.clone()).into_future());
    client.requests(count, request.as_bytes()).await;
    drop(client);
    // The tasks of the connections end here.
    for _ in 0..100 {
        yield_now().await;
    }
    server.abort();
    assert!(server.await.is_err(), "the server was stopped");
}

//! Handlers that start the same work in different ways.

use std::{
    hint::black_box,
    sync::{
        LazyLock,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use axum::{Extension, Router, routing::get};
use axum_defer::defer;
use tokio_util::task::TaskTracker;
use tracing::{Instrument, info_span};

use crate::{floor, hand_made::Pushed};

static RUN: AtomicUsize = AtomicUsize::new(0);

pub(crate) fn callbacks_run() -> usize {
    RUN.load(Relaxed)
}

/// Returns a future of 32 bytes.
pub(crate) fn work() -> impl Future<Output = ()> + Send + 'static {
    let captured = black_box([1_usize; 3]);
    async move {
        RUN.fetch_add(black_box(captured)[0], Relaxed);
    }
}

static TRACKER: LazyLock<TaskTracker> = LazyLock::new(TaskTracker::new);

fn track() {
    let span = info_span!(
        "deferred",
        callback = "audit",
        location = "handler.rs:1",
        method = "GET",
        path = "/",
    );
    drop(TRACKER.spawn(work().instrument(span)));
}

/// Starts the work a number of times.
async fn repeat<const COUNT: usize>(start: fn()) -> &'static str {
    for _ in 0..COUNT {
        start();
    }
    "hello"
}

pub(crate) fn router(handler: &str) -> Option<Router> {
    let route = match handler {
        "respond" => get(async || "hello"),
        "spawn" => get(async || repeat::<1>(|| drop(tokio::spawn(work()))).await),
        "spawn10" => get(async || repeat::<10>(|| drop(tokio::spawn(work()))).await),
        "track" => get(async || repeat::<1>(track).await),
        "push" => get(async || repeat::<1>(|| floor::push(work())).await),
        "push10" => get(async || repeat::<10>(|| floor::push(work())).await),
        "pushed" => get(async |Extension(pushed): Extension<Pushed>| {
            pushed.push(work());
            "hello"
        }),
        "defer" => get(async || repeat::<1>(|| drop(defer(work()))).await),
        "defer10" => get(async || repeat::<10>(|| drop(defer(work()))).await),
        "defer100" => get(async || repeat::<100>(|| drop(defer(work()))).await),
        "named" => get(async || repeat::<1>(|| drop(defer(work()).name("audit"))).await),
        _ => return None,
    };
    Some(Router::new().route("/", route))
}

/// Callbacks that a handler starts per request.
pub(crate) fn callbacks(handler: &str) -> usize {
    let name = handler.trim_end_matches(|last: char| last.is_ascii_digit());
    match handler[name.len()..].parse() {
        Ok(count) => count,
        Err(_) => usize::from(handler != "respond"),
    }
}

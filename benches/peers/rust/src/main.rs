//! `axum-defer-peers spawn|tracker|defer|completes ADDRESS LOG`: the same routes, with `tokio::spawn`,
//! with a `TaskTracker` that the shutdown waits for, and with axum-defer, without and with
//! `run_to_completion`.

use std::{
    convert::Infallible,
    env,
    fs::{File, OpenOptions},
    future::Future,
    io::{self, Write},
    sync::{
        LazyLock, OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use axum::{Router, body::Body, routing::get};
use axum_defer::{DeferLayer, defer};
use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use tokio::{net::TcpListener, signal::unix, time::sleep};
use tokio_util::task::TaskTracker;
use tracing::Instrument;

#[derive(Clone, Copy)]
enum Way {
    Spawn,
    Tracker,
    Defer,
    Completes,
}

static WAY: OnceLock<Way> = OnceLock::new();
static TRACKER: LazyLock<TaskTracker> = LazyLock::new(TaskTracker::new);
static LOG: OnceLock<File> = OnceLock::new();
static COUNT: AtomicU64 = AtomicU64::new(0);
static DOWNLOAD: LazyLock<Bytes> = LazyLock::new(|| vec![b'x'; 20 << 20].into());

/// Starts work after the response, in the measured way.
fn later(work: impl Future<Output = ()> + Send + 'static) {
    match WAY.get() {
        Some(Way::Spawn) => drop(tokio::spawn(work)),
        Some(Way::Tracker) => drop(TRACKER.spawn(work.in_current_span())),
        _ => drop(defer(work).always()),
    }
}

/// Logs an event with the time, on the clock that all processes share.
fn note(what: &str) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let line = format!("{what} {}\n", now.unwrap_or_default().as_nanos());
    if let Some(mut log) = LOG.get() {
        let _ = log.write_all(line.as_bytes());
    }
}

async fn counts() -> &'static str {
    later(async {
        COUNT.fetch_add(1, Relaxed);
    });
    "ok"
}

async fn download() -> Bytes {
    later(async { note("download") });
    DOWNLOAD.clone()
}

async fn waits_then_defers() -> &'static str {
    sleep(Duration::from_millis(300)).await;
    later(async { note("waits-then-defers") });
    "ok"
}

async fn defers_then_waits() -> &'static str {
    later(async { note("defers-then-waits") });
    sleep(Duration::from_millis(300)).await;
    "ok"
}

fn chunks() -> impl Stream<Item = Result<Bytes, Infallible>> {
    stream::iter(0..20).then(|_| async {
        sleep(Duration::from_millis(25)).await;
        Ok(DOWNLOAD.slice(..64 << 10))
    })
}

async fn streams() -> Body {
    later(async { note("stream") });
    Body::from_stream(chunks())
}

async fn lasts() -> &'static str {
    later(async {
        note("began");
        sleep(Duration::from_millis(500)).await;
        note("finished");
    });
    "ok"
}

async fn fails_first() -> &'static str {
    later(async { panic!("the first one fails, on purpose") });
    later(async { note("second") });
    "ok"
}

#[tokio::main]
async fn main() -> io::Result<()> {
    let arguments: Vec<_> = env::args().collect();
    let [_, way, address, log] = &arguments[..] else {
        return Err(io::Error::other(
            "spawn|tracker|defer|completes ADDRESS LOG",
        ));
    };
    let way = match way.as_str() {
        "spawn" => Way::Spawn,
        "tracker" => Way::Tracker,
        "defer" => Way::Defer,
        "completes" => Way::Completes,
        other => return Err(io::Error::other(format!("no such way: {other}"))),
    };
    let _ = WAY.set(way);
    let _ = LOG.set(OpenOptions::new().append(true).create(true).open(log)?);
    let app = Router::new()
        .route("/plain", get(async || "ok"))
        .route("/defer", get(counts))
        .route("/download", get(download))
        .route("/waits-then-defers", get(waits_then_defers))
        .route("/defers-then-waits", get(defers_then_waits))
        .route("/stream", get(streams))
        .route("/lasts", get(lasts))
        .route("/fails-first", get(fails_first));
    let listener = TcpListener::bind(address).await?;
    let mut terminate = unix::signal(unix::SignalKind::terminate())?;
    let stop = async move {
        terminate.recv().await;
    };
    let layer = match way {
        Way::Spawn | Way::Tracker => None,
        Way::Defer => Some(DeferLayer::new()),
        Way::Completes => Some(DeferLayer::new().run_to_completion()),
    };
    if let Some(layer) = layer {
        axum_defer::serve(listener, app.layer(layer))
            .with_graceful_shutdown(stop)
            .await?;
        return Ok(());
    }
    axum::serve(listener, app)
        .with_graceful_shutdown(stop)
        .await?;
    TRACKER.close();
    TRACKER.wait().await;
    Ok(())
}

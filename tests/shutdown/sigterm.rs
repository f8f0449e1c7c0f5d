//! SIGTERM under load: every callback whose response a client got has run once, or stands in the
//! report.
//!
//! The server is a process of its own: this test binary, told by environment variables to run the
//! server's part. Its callbacks append to a file, which is counted against what the clients got.

#![allow(clippy::unwrap_used)]

use std::{
    collections::{HashMap, HashSet},
    fs::OpenOptions,
    io::{BufRead, BufReader, Write},
    net::SocketAddr,
    path::PathBuf,
    process::{Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use axum::{Router, extract::Path, http::Request, routing::get};
use axum_defer::{DeferLayer, defer, serve};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    net::{TcpListener, TcpStream},
    signal::unix::{SignalKind, signal},
    sync::Notify,
};

const FILE: &str = "AXUM_DEFER_TEST_SIGTERM_FILE";
/// Every so many callbacks never end, where the server is told so.
const NEVER: &str = "AXUM_DEFER_TEST_SIGTERM_NEVER";
const CONNECTIONS: usize = 64;
/// Nothing here takes so long.
const HANGS: Duration = Duration::from_secs(60);
/// So many responses are out when the signal comes; the load goes on until the server hangs up.
const BEFORE_THE_SIGNAL: usize = 1_500;

/// The server's part; as a test of its own it has nothing to do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_s_part() {
    let Ok(path) = std::env::var(FILE) else {
        return;
    };
    let never: Option<u64> = std::env::var(NEVER)
        .ok()
        .map(|never| never.parse().unwrap());
    let file = OpenOptions::new().append(true).open(path).unwrap();
    let file = Arc::new(file);
    let answer = move |Path(id): Path<u64>| async move {
        defer(async move {
            if never.is_some_and(|never| id % never == 0) {
                std::future::pending::<()>().await;
            }
            // The load that a shutdown has to wait for.
            tokio::time::sleep(Duration::from_millis(id % 30)).await;
            (&*file).write_all(format!("{id}\n").as_bytes())
        })
        .name(id.to_string());
        // More than one frame may be under way when the signal comes.
        format!("{id:>2000}")
    };
    let app = Router::new()
        .route("/{id}", get(answer))
        .layer(DeferLayer::new());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut terminated = signal(SignalKind::terminate()).unwrap();
    println!("\nlistening: {}", listener.local_addr().unwrap());
    let timeout = match never {
        Some(_) => Duration::from_millis(300),
        None => Duration::from_secs(3600),
    };
    let served = serve(listener, app)
        .with_graceful_shutdown(async move {
            terminated.recv().await;
        })
        .drain_timeout(timeout);
    // When this process ends, so does all that its parent waits for.
    let served = tokio::time::timeout(HANGS, served.into_future()).await;
    let report = served.expect("it hangs").unwrap();
    for unfinished in &report.unfinished {
        println!("\nunfinished: {}", unfinished.name().unwrap());
    }
    println!(
        "\ncounts: {} {} {}",
        report.failed, report.skipped, report.lost
    );
    std::process::exit(0);
}

/// Sends requests over one connection until the server ends it, and notes what it got whole.
async fn load(address: SocketAddr, is_http2: bool, ids: &AtomicU64, got: &Got) {
    let Ok(stream) = TcpStream::connect(address).await else {
        return;
    };
    let io = TokioIo::new(stream);
    if is_http2 {
        let Ok((mut client, connection)) = http2::handshake(TokioExecutor::new(), io).await else {
            return;
        };
        tokio::spawn(connection);
        while client.ready().await.is_ok() {
            let id = ids.fetch_add(1, SeqCst);
            got.note(id, client.send_request(request(id)).await).await;
        }
    } else {
        let Ok((mut client, connection)) = http1::handshake(io).await else {
            return;
        };
        tokio::spawn(connection);
        while client.ready().await.is_ok() {
            let id = ids.fetch_add(1, SeqCst);
            got.note(id, client.send_request(request(id)).await).await;
        }
    }
}

fn request(id: u64) -> Request<Empty<Bytes>> {
    Request::get(format!("http://a/{id}"))
        .header("host", "a")
        .body(Empty::new())
        .unwrap()
}

/// The ids whose responses arrived whole.
#[derive(Default)]
struct Got {
    ids: Mutex<Vec<u64>>,
    enough: Notify,
}

impl Got {
    async fn note(&self, id: u64, answer: hyper::Result<http::Response<hyper::body::Incoming>>) {
        let Ok(response) = answer else { return };
        let Ok(body) = response.into_body().collect().await else {
            return;
        };
        assert_eq!(body.to_bytes(), format!("{id:>2000}"));
        let mut ids = self.ids.lock().unwrap();
        ids.push(id);
        if ids.len() == BEFORE_THE_SIGNAL {
            self.enough.notify_one();
        }
    }
}

struct Outcome {
    got: Vec<u64>,
    /// How often each id stands in the file.
    ran: HashMap<u64, usize>,
    unfinished: HashSet<u64>,
    counts: String,
}

async fn terminate_under_load(never: Option<u64>) -> Outcome {
    let name = format!("axum-defer-sigterm-{}-{never:?}", std::process::id());
    let path: PathBuf = std::env::temp_dir().join(name);
    std::fs::write(&path, "").unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "sigterm::the_server_s_part", "--nocapture"])
        .env(FILE, &path)
        .stdout(Stdio::piped());
    if let Some(never) = never {
        command.env(NEVER, never.to_string());
    }
    let mut server = command.spawn().unwrap();
    let mut lines = BufReader::new(server.stdout.take().unwrap())
        .lines()
        .map(Result::unwrap);
    let address = lines
        .find_map(|line| Some(line.strip_prefix("listening: ")?.to_owned()))
        .unwrap();
    let address: SocketAddr = address.parse().unwrap();

    let ids = Arc::new(AtomicU64::new(1));
    let got = Arc::new(Got::default());
    let mut clients = tokio::task::JoinSet::new();
    for index in 0..CONNECTIONS {
        let (ids, got) = (ids.clone(), got.clone());
        clients.spawn(async move { load(address, index % 2 == 0, &ids, &got).await });
    }
    tokio::time::timeout(HANGS, got.enough.notified())
        .await
        .expect("it hangs");
    let killed = Command::new("kill")
        .args(["-TERM", &server.id().to_string()])
        .status();
    assert!(killed.unwrap().success());
    while let Some(client) = clients.join_next().await {
        client.unwrap();
    }

    let mut unfinished = HashSet::new();
    let mut counts = String::new();
    for line in lines {
        if let Some(id) = line.strip_prefix("unfinished: ") {
            assert!(unfinished.insert(id.parse().unwrap()), "reported twice");
        }
        if let Some(line) = line.strip_prefix("counts: ") {
            counts = line.to_owned();
        }
    }
    assert!(server.wait().unwrap().success());
    let mut ran = HashMap::new();
    for line in std::fs::read_to_string(&path).unwrap().lines() {
        *ran.entry(line.parse().unwrap()).or_default() += 1;
    }
    std::fs::remove_file(path).unwrap();
    let got = std::mem::take(&mut *got.ids.lock().unwrap());
    Outcome {
        got,
        ran,
        unfinished,
        counts,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_callback_whose_response_was_given_has_run_once_when_there_is_time() {
    let outcome = terminate_under_load(None).await;
    assert!(outcome.got.len() >= BEFORE_THE_SIGNAL);
    assert!(outcome.unfinished.is_empty());
    for id in &outcome.got {
        assert_eq!(outcome.ran.get(id), Some(&1), "{id}");
    }
    assert!(outcome.ran.values().all(|times| *times == 1));
    assert_eq!(outcome.counts, "0 0 0", "failed, skipped, lost");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_callback_that_has_not_run_at_the_deadline_stands_in_the_report() {
    let outcome = terminate_under_load(Some(50)).await;
    assert!(outcome.got.len() >= BEFORE_THE_SIGNAL);
    for id in &outcome.got {
        let ran = outcome.ran.get(id).copied().unwrap_or(0);
        let is_reported = outcome.unfinished.contains(id);
        // One that ends while the report is printed is in both.
        assert!(ran == 1 || (ran == 0 && is_reported), "{id}: {ran}");
        if id % 50 == 0 {
            assert!(is_reported, "{id} never ends");
        }
    }
    assert!(outcome.ran.values().all(|times| *times == 1));
    assert_eq!(outcome.counts, "0 0 0", "failed, skipped, lost");
}

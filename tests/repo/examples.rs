//! Runs the examples as a reader would, and checks what they print.
//!
//! `cargo test --all-features` builds them first; with `--test repo examples` alone, build them
//! with
//! `cargo build --all-features --examples`.
#![cfg(all(feature = "serve", feature = "tracing", feature = "metrics"))]

use std::{
    path::PathBuf,
    process::{Output, Stdio},
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines},
    net::TcpStream,
    process::{Child, ChildStdout, Command},
    time::timeout,
};

/// Nothing here takes long; who waits for this hangs.
const HANGS: Duration = Duration::from_secs(60);

fn example(name: &str) -> Command {
    let test = std::env::current_exe().unwrap();
    let target: PathBuf = test.ancestors().nth(2).unwrap().into();
    let path = target
        .join("examples")
        .join(format!("{name}{}", std::env::consts::EXE_SUFFIX));
    assert!(
        path.exists(),
        "{} is not built: run `cargo build --all-features --examples`",
        path.display()
    );
    let mut command = Command::new(path);
    command
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .kill_on_drop(true);
    command
}

async fn output(mut command: Command) -> (String, Output) {
    let output = timeout(HANGS, command.output())
        .await
        .expect("the example does not end")
        .unwrap();
    (String::from_utf8_lossy(&output.stdout).into_owned(), output)
}

async fn run(name: &str) -> String {
    let (stdout, output) = output(example(name)).await;
    assert!(output.status.success(), "{name}: {output:?}");
    stdout
}

/// The parts are there, and in this order.
fn assert_tells(stdout: &str, parts: &[&str]) {
    let mut rest = stdout;
    for part in parts {
        let Some(place) = rest.find(part) else {
            panic!("no {part:?} where it belongs in:\n{stdout}");
        };
        rest = &rest[place + part.len()..];
    }
}

#[tokio::test]
async fn quickstart_prints_each_outcome() {
    let stdout = run("quickstart").await;
    let chapters: Vec<_> = stdout.split("\n\n").collect();
    let [
        start,
        sign_up,
        refused,
        slow_download,
        broken_download,
        shutdown,
        report,
    ] = chapters[..]
    else {
        panic!("not the chapters:\n{stdout}");
    };

    assert_tells(start, &["listening on http://127.0.0.1:"]);
    // When the client comes to tell of the response is up to the scheduler.
    assert_tells(
        sign_up,
        &["POST /sign-up/grace\n", "has the response: 201 Created"],
    );
    assert_tells(
        sign_up,
        &[
            "welcome mail  ok",
            "newsletter    error: the newsletter service is down",
            "audit         ok",
        ],
    );
    assert_tells(refused, &["has the response: 409 Conflict"]);
    assert_tells(
        refused,
        &[
            "welcome mail  skipped: 409, Complete",
            "newsletter    skipped: 409, Complete",
            "audit         ok",
        ],
    );
    assert_tells(
        slow_download,
        &[
            "pauses",
            "continues; pending callbacks: 1",
            "bill          ok",
        ],
    );
    assert_tells(slow_download, &["has all 32 MiB"]);
    assert_tells(broken_download, &["bill          skipped: 200, Aborted"]);
    assert_tells(shutdown, &["has the response: 201 Created"]);
    assert_tells(
        shutdown,
        &["welcome mail  ok", "audit         ok", "has shut down"],
    );
    // How many are left for the shutdown to wait for is up to the scheduler.
    let report = report.trim_end();
    assert!(
        report.starts_with("deferred callbacks while draining: "),
        "{report}"
    );
    assert!(
        report.ends_with("0 skipped, 0 lost, 0 unfinished"),
        "{report}"
    );
}

#[tokio::test]
async fn cli_obeys_its_exit_code() {
    let stdout = run("cli").await;
    assert_tells(
        &stdout,
        &[
            "imported ",
            "deferred: refresh the cache\n",
            "deferred: remove the temporary files\n",
        ],
    );

    let mut command = example("cli");
    command.arg("no/such/file");
    let (stdout, output) = output(command).await;
    assert_eq!(output.status.code(), Some(1));
    assert_tells(
        &stdout,
        &[
            "the import failed",
            "deferred: remove the temporary files\n",
        ],
    );
    assert!(!stdout.contains("refresh the cache"), "{stdout}");
}

#[tokio::test]
async fn queue_worker_opens_a_scope_per_job() {
    let stdout = run("queue_worker").await;
    assert_tells(
        &stdout,
        &[
            "job 1: notify the customer\n",
            "job 1: release the license\n",
            "job 1: done\n",
            "job 2: release the license\n",
            "job 2: returned to the queue, \"nowhere\" is not an address\n",
            "job 3: notify the customer\n",
            "callback \"hangs\" failed: timed out after 100ms\n",
            "job 3: done\n",
            "complete: true\n",
        ],
    );
    assert!(!stdout.contains("job 2: notify"), "{stdout}");
}

#[tokio::test]
async fn observability_links_spans_and_counts() {
    let stdout = run("observability").await;
    let field = |span: &str, name: &str| {
        span.lines().find_map(|line| {
            let value = line.trim().strip_prefix(name)?;
            Some(value.trim().to_owned())
        })
    };
    let spans: Vec<_> = stdout.split("\n\n").collect();
    let request = spans.iter().find(|span| span.starts_with("request\n"));
    let request = field(request.expect("a request span"), "span").unwrap();
    let deferred: Vec<_> = spans
        .iter()
        .filter(|span| span.starts_with("deferred\n"))
        .collect();
    assert_eq!(deferred.len(), 2, "{stdout}");
    for (span, name) in deferred.iter().zip(["mail", "audit"]) {
        assert_eq!(field(span, "linked to").as_ref(), Some(&request));
        assert_eq!(field(span, "callback").as_deref(), Some(name));
    }
    assert_tells(
        &stdout,
        &["the request span ended before the mail was sent"],
    );

    for line in [
        "# TYPE deferred_callbacks_total counter",
        "deferred_callbacks_total{outcome=\"ok\",phase=\"after\"} 2",
        "deferred_callbacks_total{outcome=\"error\",phase=\"after\"} 3",
        "deferred_callbacks_total{outcome=\"skipped\",phase=\"after\"} 1",
        // There from the start, so that an alert sees the first loss.
        "deferred_callbacks_total{outcome=\"lost\",phase=\"after\"} 0",
        "deferred_callbacks_pending 0",
        "deferred_callbacks_running 0",
        "deferred_callback_queue_time_seconds_count{phase=\"after\"} 5",
        "deferred_callback_run_time_seconds_count{phase=\"after\"} 5",
    ] {
        assert!(
            stdout.lines().any(|rendered| rendered == line),
            "no {line:?} in:\n{stdout}"
        );
    }
}

#[tokio::test]
async fn file_download_deletes_the_file() {
    assert_tells(
        &run("file_download").await,
        &[
            "slow client, first bytes: 1 file\n",
            "deleted: the response was Complete\n",
            "slow client, complete: 0 files\n",
            "second client, first bytes: 1 file\n",
            "deleted: the response was Aborted\n",
            "second client, disconnected: 0 files\n",
            "deleted: the response was Complete\n",
            "third client, invalid range: 0 files\n",
        ],
    );
}

#[tokio::test]
async fn sse_runs_its_callback_at_shutdown() {
    let stdout = run("sse").await;
    assert_tells(&stdout, &["the stream ended: Complete, after "]);
    assert_tells(
        &stdout,
        &[
            "the server shuts down\n",
            "the client has the last event and the end of the response\n",
            "deferred callbacks while draining: 1 succeeded, 0 failed, 0 skipped, 0 lost, 0 unfinished\n",
        ],
    );
}

#[tokio::test]
async fn grpc_skips_callbacks_of_failed_call() {
    let stdout = run("grpc").await;
    assert_tells(&stdout, &["shop: Serving\n", "casino: NotFound\n"]);
    assert_eq!(stdout.matches("billed\n").count(), 1, "{stdout}");
    assert_tells(
        &stdout,
        &["bill skipped: the HTTP status was 200, the call failed\n"],
    );
}

#[tokio::test]
async fn stale_while_revalidate_refreshes_once() {
    assert_tells(
        &run("stale_while_revalidate").await,
        &[
            "100 requests got the stale value immediately\n",
            "one refresh ran\n",
            "the next request got the new value\n",
        ],
    );
}

#[cfg(unix)]
#[tokio::test]
async fn unix_socket_knows_its_peer() {
    assert_tells(
        &run("unix_socket").await,
        &[
            "listening on /",
            "sent a response to user ",
            " 0 failed, 0 skipped, 0 lost, 0 unfinished\n",
        ],
    );
}

#[tokio::test]
async fn multi_tenant_keeps_tenants_apart() {
    assert_tells(
        &run("multi_tenant").await,
        &[
            "acme: invoice 2, invoice 4, invoice 6, order 2, order 4, order 6\n",
            "globex: invoice 1, invoice 3, invoice 5, order 1, order 3, order 5\n",
        ],
    );
}

#[tokio::test]
async fn testing_passes_its_tests() {
    assert_eq!(run("testing").await, "5 tests passed\n");
}

#[tokio::test]
async fn tls_serves_one_request() {
    assert_tells(
        &run("tls").await,
        &[
            "listening on https://127.0.0.1:",
            "the encrypted response has been sent\n",
            " 0 failed, 0 skipped, 0 lost, 0 unfinished\n",
        ],
    );
}

#[tokio::test]
async fn live_serves_n_requests() {
    let mut command = example("live");
    command.arg("20").env("ADDRESS", "127.0.0.1:0");
    let (stdout, output) = output(command).await;
    assert!(output.status.success(), "{output:?}");
    assert_tells(&stdout, &["/admin/deferred\n", " 0 unfinished\n"]);
}

#[test]
fn every_example_is_short_and_run() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let live = root.join("../axum-defer-live/examples/live");
    let mut count = 0;
    for folder in [root.clone(), live, root.join("integrations")] {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_none_or(|extension| extension != "rs") {
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            assert!(text.lines().count() < 120, "{} is long", path.display());
            // An example of several files has the name of their folder.
            let is_main = path.ends_with("live/main.rs");
            let named = if is_main { &folder } else { &path };
            let name = named.file_stem().unwrap().to_str().unwrap().to_owned();
            if name == "lib" || (folder.ends_with("live") && !is_main) {
                continue;
            }
            let head: Vec<_> = text
                .lines()
                .map_while(|line| line.strip_prefix("//!"))
                .flat_map(str::split_whitespace)
                .collect();
            let command = format!("cargo run --example {name}");
            assert!(head.join(" ").contains(&command), "{name}: no {command:?}");
            let is_run = include_str!("examples.rs").contains(&format!("(\"{name}\")"));
            assert!(is_run, "nothing here runs {name}");
            count += 1;
        }
    }
    assert!(count >= 15, "{count}");
}

/// A server example on a free port.
struct Server {
    child: Child,
    stdout: Lines<BufReader<ChildStdout>>,
    address: String,
}

impl Server {
    async fn start(name: &str) -> Self {
        let mut child = example(name)
            .env("PORT", "0")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = next_line(&mut stdout).await;
        let address = line
            .strip_prefix("listening on http://")
            .unwrap()
            .to_owned();
        Self {
            child,
            stdout,
            address,
        }
    }

    async fn sign_up(&self) -> String {
        let mut connection = TcpStream::connect(&self.address).await.unwrap();
        let request = "POST /sign-up HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
        connection.write_all(request.as_bytes()).await.unwrap();
        read_all(connection).await
    }
}

async fn read_all(mut connection: TcpStream) -> String {
    let mut response = String::new();
    let read = timeout(HANGS, connection.read_to_string(&mut response)).await;
    read.expect("the response does not end").unwrap();
    response
}

async fn next_line(stdout: &mut Lines<BufReader<ChildStdout>>) -> String {
    timeout(HANGS, stdout.next_line())
        .await
        .expect("the example says nothing")
        .unwrap()
        .expect("the example ended")
}

#[tokio::test]
async fn hello_answers_and_defers() {
    let mut server = Server::start("hello").await;
    let response = server.sign_up().await;
    assert_tells(&response, &["HTTP/1.1 200 OK\r\n", "\r\n\r\nwelcome\n"]);
    let line = next_line(&mut server.stdout).await;
    assert_eq!(line, "the response has been sent: sending the welcome mail");
}

#[cfg(unix)]
#[tokio::test]
async fn shutdown_waits_and_reports() {
    let mut server = Server::start("shutdown").await;
    // The server asks for the body when the handler is at it, so the request is in flight.
    let mut connection = TcpStream::connect(&server.address).await.unwrap();
    let head = "POST /sign-up HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
                expect: 100-continue\r\ncontent-length: 5\r\n\r\n";
    connection.write_all(head.as_bytes()).await.unwrap();
    let mut go_on = [0; b"HTTP/1.1 100 Continue\r\n\r\n".len()];
    let read = timeout(HANGS, connection.read_exact(&mut go_on)).await;
    read.expect("nobody reads the request").unwrap();
    assert!(go_on.starts_with(b"HTTP/1.1 100 "));

    let id = server.child.id().unwrap().to_string();
    let killed = Command::new("kill").args(["-TERM", &id]).status().await;
    assert!(killed.unwrap().success());
    assert_eq!(next_line(&mut server.stdout).await, "shutting down");

    connection.write_all(b"grace").await.unwrap();
    let response = read_all(connection).await;
    assert_tells(&response, &["HTTP/1.1 200 OK\r\n", "\r\n\r\nwelcome\n"]);
    for expected in [
        "sent the welcome mail to grace",
        "deferred callbacks while draining: 1 succeeded, 0 failed, 0 skipped, 0 lost, 0 unfinished",
    ] {
        assert_eq!(next_line(&mut server.stdout).await, expected);
    }
    let status = timeout(HANGS, server.child.wait()).await.unwrap().unwrap();
    assert!(status.success());
}

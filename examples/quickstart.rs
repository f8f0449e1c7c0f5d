//! What happens when: a server, and a client that sends it some requests.
//!
//! `cargo run --example quickstart` starts the server on a free port, prints what the client sees
//! and what becomes of each callback, shuts the server down, and exits.

use std::{
    fmt,
    io::{self, IsTerminal},
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use axum::{
    Router,
    extract::{Path, State},
    http::StatusCode,
    routing::{get, post},
};
use axum_defer::{
    CallbackInfo, Completion, DeferLayer, DeferObserver, Finished, LostReason, defer,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::oneshot,
};

// ── The app ─────────────────────────────────────────────────────────────────────────────────────

async fn sign_up(Path(name): Path<String>) -> (StatusCode, &'static str) {
    defer(send_mail()).name("welcome mail"); // only if the response was a success
    defer(async { Err("the newsletter service is down") }).name("newsletter");
    defer(async { /* write to the log */ })
        .name("audit")
        .always(); // whatever happened

    match name.as_str() {
        "ada" => (StatusCode::CONFLICT, "there is an ada"),
        _ => (StatusCode::CREATED, "welcome"),
    }
}

async fn download(State(timeline): State<Timeline>) -> Vec<u8> {
    defer(move |completion: Completion| async move {
        timeline.server(&format!(
            "sends a bill for {}",
            mib(completion.bytes_sent())
        ));
    })
    .name("bill")
    .when(|completion| completion.is_success() && completion.is_delivered());

    vec![0; DOWNLOAD]
}

const DOWNLOAD: usize = 32 << 20;

/// Stands for the conversation with a mail server.
async fn send_mail() {
    tokio::time::sleep(Duration::from_millis(30)).await;
}

// ── The server, and what the client does with it ────────────────────────────────────────────────

#[tokio::main]
async fn main() -> io::Result<()> {
    let timeline = Timeline::default();
    let layer = DeferLayer::new().observer(timeline.clone());
    let deferred = layer.handle();
    let app = Router::new()
        .route("/sign-up/{name}", post(sign_up))
        .route("/download", get(download))
        .with_state(timeline.clone())
        .layer(layer);

    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let (stop, stopped) = oneshot::channel::<()>();
    let server = axum_defer::serve(listener, app).with_graceful_shutdown(async {
        let _ = stopped.await;
    });
    let server = tokio::spawn(server.into_future());
    println!("a server on http://{address}, and its client");

    timeline.begin("POST /sign-up/grace");
    let response = send(address, "POST /sign-up/grace")
        .await?
        .read_all()
        .await?;
    timeline.client(&format!("has the response: {}", response.status));
    deferred.wait_idle().await;
    timeline.print();

    timeline.begin("POST /sign-up/ada, which is refused");
    let response = send(address, "POST /sign-up/ada").await?.read_all().await?;
    timeline.client(&format!("has the response: {}", response.status));
    deferred.wait_idle().await;
    timeline.print();

    timeline.begin("GET /download, read slowly");
    let mut response = send(address, "GET /download").await?;
    response.read_some().await?;
    timeline.client(&format!("has {}, and stops to read", mib(response.bytes)));
    tokio::time::sleep(Duration::from_millis(250)).await;
    timeline.client(&match deferred.pending() {
        0 => "reads on; it has been billed already".to_owned(),
        _ => "reads on; it has not been billed".to_owned(),
    });
    let response = response.read_all().await?;
    timeline.client(&format!("has all {}", mib(response.bytes)));
    deferred.wait_idle().await;
    timeline.print();

    timeline.begin("GET /download, broken off");
    let mut response = send(address, "GET /download").await?;
    response.read_some().await?;
    timeline.client(&format!("has {}, and hangs up", mib(response.bytes)));
    drop(response);
    deferred.wait_idle().await;
    timeline.print();

    timeline.begin("POST /sign-up/alan, and at once a graceful shutdown");
    let response = send(address, "POST /sign-up/alan")
        .await?
        .read_all()
        .await?;
    timeline.client(&format!("has the response: {}", response.status));
    let _ = stop.send(());
    let report = server.await?;
    timeline.server("has shut down");
    timeline.print();

    println!("\n{report}");
    Ok(())
}

/// A response that is being read.
struct Response {
    connection: TcpStream,
    status: String,
    bytes: u64,
}

/// Sends a request, and reads the head of the response.
async fn send(address: SocketAddr, request: &str) -> io::Result<Response> {
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(64 << 10)?;
    let mut connection = socket.connect(address).await?;
    let request = format!("{request} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    connection.write_all(request.as_bytes()).await?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(connection.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&head);
    let status = head.lines().next().unwrap_or_default();
    Ok(Response {
        connection,
        status: status.trim_start_matches("HTTP/1.1 ").to_owned(),
        bytes: 0,
    })
}

impl Response {
    async fn read_some(&mut self) -> io::Result<usize> {
        let read = self.connection.read(&mut [0; 64 << 10]).await?;
        self.bytes += read as u64;
        Ok(read)
    }

    async fn read_all(mut self) -> io::Result<Self> {
        while self.read_some().await? > 0 {}
        Ok(self)
    }
}

// ── What is printed ─────────────────────────────────────────────────────────────────────────────

/// Is told what happens to callbacks, and lists it beside what the client does.
#[derive(Clone, Default)]
struct Timeline {
    chapter: Arc<Mutex<Chapter>>,
}

#[derive(Default)]
struct Chapter {
    title: String,
    start: Option<Instant>,
    rows: Vec<Row>,
}

struct Row {
    milliseconds: u128,
    who: Who,
    what: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Who {
    Client,
    Server,
    Good,
    Skipped,
    Bad,
}

impl DeferObserver for Timeline {
    fn finished(&self, callback: &CallbackInfo<'_>, finished: &Finished<'_>) {
        let who = if finished.is_ok() {
            Who::Good
        } else {
            Who::Bad
        };
        let took = finished.took.as_millis();
        self.callback(
            who,
            callback,
            &format!("{}, took {took} ms", finished.outcome),
        );
    }

    fn skipped(&self, callback: &CallbackInfo<'_>, completion: &Completion) {
        let status = completion.status().map_or(0, |status| status.as_u16());
        let delivery = completion.delivery();
        let reason = format!("skipped: the response was a {status}, {delivery:?}");
        self.callback(Who::Skipped, callback, &reason);
    }

    fn lost(&self, callback: &CallbackInfo<'_>, reason: LostReason) {
        self.callback(Who::Bad, callback, &format!("lost: {reason}"));
    }
}

impl Timeline {
    fn begin(&self, title: &str) {
        *self.lock() = Chapter {
            title: title.to_owned(),
            start: Some(Instant::now()),
            rows: Vec::new(),
        };
    }

    fn client(&self, what: &str) {
        self.row(Who::Client, format!("client        {what}"));
    }

    fn server(&self, what: &str) {
        self.row(Who::Server, format!("server        {what}"));
    }

    fn callback(&self, who: Who, callback: &CallbackInfo<'_>, what: &str) {
        let name = callback.name().unwrap_or("unnamed");
        self.row(who, format!("{name:<13} {what}"));
    }

    fn row(&self, who: Who, what: String) {
        let mut chapter = self.lock();
        let milliseconds = chapter.start.map_or(0, |start| start.elapsed().as_millis());
        chapter.rows.push(Row {
            milliseconds,
            who,
            what,
        });
    }

    /// The response leaves the server and reaches the client within the same millisecond, and
    /// the order in which two threads come to tell of it means nothing.
    fn print(&self) {
        let mut chapter = self.lock();
        chapter
            .rows
            .sort_by_key(|row| (row.milliseconds, row.who != Who::Client));
        println!("\n{}", chapter.title);
        for row in &chapter.rows {
            println!("{row}");
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Chapter> {
        self.chapter.lock().expect("nobody panics while writing")
    }
}

impl fmt::Display for Row {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let colour = match self.who {
            _ if !io::stdout().is_terminal() => "",
            Who::Client | Who::Server => "\x1b[2m",
            Who::Good => "\x1b[32m",
            Who::Skipped => "\x1b[33m",
            Who::Bad => "\x1b[31m",
        };
        let plain = if colour.is_empty() { "" } else { "\x1b[0m" };
        let Self {
            milliseconds, what, ..
        } = self;
        write!(formatter, "{milliseconds:>6} ms   {colour}{what}{plain}")
    }
}

fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

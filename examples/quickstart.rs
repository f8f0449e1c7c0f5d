//! What happens when: a server, and a client that sends it some requests.
//!
//! `cargo run --example quickstart` starts the server on a free port, prints what the client sees
//! and what becomes of each callback, shuts the server down, and exits.

use std::{fmt::Display, io, net::SocketAddr, time::Duration, time::Instant};

use axum::{Router, extract::Path, http::StatusCode, routing::get, routing::post};
use axum_defer::{CallbackInfo, Completion, DeferLayer, DeferObserver, Finished, defer};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, copy, sink};
use tokio::{net::TcpListener, net::TcpStream, sync::oneshot, time::sleep};

async fn sign_up(Path(name): Path<String>) -> (StatusCode, &'static str) {
    let mail = sleep(Duration::from_millis(30)); // in the place of a mail server
    defer(mail).name("welcome mail"); // only if the response was a success
    defer(async { Err("the newsletter service is down") }).name("newsletter");
    defer(async {}).name("audit").always(); // whatever happened

    match name.as_str() {
        "ada" => (StatusCode::CONFLICT, "there is an ada"),
        _ => (StatusCode::CREATED, "welcome"),
    }
}

async fn download() -> Vec<u8> {
    defer(async { /* send a bill */ })
        .name("bill")
        .when(|completion| completion.is_success() && completion.is_complete());
    vec![0; 32 << 20]
}

#[tokio::main]
async fn main() -> io::Result<()> {
    let timeline = Timeline(Instant::now());
    let layer = DeferLayer::new().observer(timeline);
    let deferred = layer.handle();
    let app = Router::new()
        .route("/sign-up/{name}", post(sign_up))
        .route("/download", get(download))
        .layer(layer);

    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let (stop, stopped) = oneshot::channel();
    let server = axum_defer::serve(listener, app)
        .with_graceful_shutdown(async { stopped.await.unwrap_or_default() });
    let server = tokio::spawn(server.into_future());
    println!("a server on http://{address}, and its client");

    for name in ["grace", "ada"] {
        println!("\nPOST /sign-up/{name}");
        let (status, _) = send(address, &format!("POST /sign-up/{name}")).await?;
        timeline.note("client", format!("has the response: {status}"));
        deferred.wait_idle().await;
    }

    println!("\nGET /download, read slowly");
    let (status, mut body) = send(address, "GET /download").await?;
    timeline.note("client", format!("has the head: {status}; stops to read"));
    sleep(Duration::from_millis(250)).await;
    let pending = deferred.pending();
    timeline.note(
        "client",
        format!("reads on; callbacks that wait: {pending}"),
    );
    let bytes = copy(&mut body, &mut sink()).await?;
    timeline.note("client", format!("has all {} MiB", bytes >> 20));
    deferred.wait_idle().await;

    println!("\nGET /download, broken off");
    drop(send(address, "GET /download").await?);
    timeline.note("client", "has the head, and hangs up");
    deferred.wait_idle().await;

    println!("\nPOST /sign-up/alan, and at once a graceful shutdown");
    let (status, _) = send(address, "POST /sign-up/alan").await?;
    timeline.note("client", format!("has the response: {status}"));
    drop(stop);
    let report = server.await?;
    timeline.note("server", "has shut down");
    println!("\n{report}");
    Ok(())
}

/// Sends a request, and reads the head of the response.
async fn send(address: SocketAddr, request: &str) -> io::Result<(String, BufReader<TcpStream>)> {
    let mut connection = BufReader::new(TcpStream::connect(address).await?);
    let head = format!("{request} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    connection.write_all(head.as_bytes()).await?;
    let mut head = String::new();
    while connection.read_line(&mut head).await? > 2 {}
    let status = head.lines().next().unwrap_or_default();
    let status = status.trim_start_matches("HTTP/1.1 ").to_owned();
    Ok((status, connection))
}

/// Since when it tells what happens, and what becomes of callbacks.
#[derive(Clone, Copy)]
struct Timeline(Instant);

impl Timeline {
    fn note(&self, who: &str, what: impl Display) {
        println!("{:>6} ms   {who:<13} {what}", self.0.elapsed().as_millis());
    }
}

impl DeferObserver for Timeline {
    fn finished(&self, callback: &CallbackInfo<'_>, finished: &Finished<'_>) {
        self.note(callback.name().unwrap_or("unnamed"), finished.outcome);
    }

    fn skipped(&self, callback: &CallbackInfo<'_>, completion: &Completion) {
        let status = completion.status().map_or(0, |status| status.as_u16());
        let why = format!("skipped: {status}, {:?}", completion.delivery());
        self.note(callback.name().unwrap_or("unnamed"), why);
    }
}

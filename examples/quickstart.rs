//! A timeline of requests and their callbacks.
//!
//! `cargo run --example quickstart` starts a server on a free port, sends it some requests, prints
//! when responses arrive and how each callback ends, shuts the server down, and exits.

use std::{fmt::Display, io, net::SocketAddr, time::Duration, time::Instant};

use axum::{Router, extract::Path, http::StatusCode, routing::get, routing::post};
use axum_defer::{CallbackInfo, Completion, DeferLayer, DeferObserver, Finished, defer};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, copy, sink};
use tokio::{net::TcpListener, net::TcpStream, sync::oneshot, time::sleep};

async fn sign_up(Path(name): Path<String>) -> (StatusCode, &'static str) {
    let mail = sleep(Duration::from_millis(30)); // instead of a mail server
    defer(mail).name("welcome mail"); // only if the response was a success
    defer(async { Err("the newsletter service is down") }).name("newsletter");
    defer(async {}).name("audit").always(); // in any case

    match name.as_str() {
        "ada" => (StatusCode::CONFLICT, "name taken"),
        _ => (StatusCode::CREATED, "welcome"),
    }
}

async fn download() -> Vec<u8> {
    defer(async { /* send an invoice */ })
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
    println!("listening on http://{address}");

    for name in ["grace", "ada"] {
        println!("\nPOST /sign-up/{name}");
        let (status, _) = send(address, &format!("POST /sign-up/{name}")).await?;
        timeline.note("client", format!("has the response: {status}"));
        deferred.wait_idle().await;
    }

    println!("\nGET /download, read slowly");
    let (status, mut body) = send(address, "GET /download").await?;
    timeline.note("client", format!("has the head: {status}; pauses"));
    sleep(Duration::from_millis(250)).await;
    let pending = deferred.pending();
    timeline.note("client", format!("continues; pending callbacks: {pending}"));
    let bytes = copy(&mut body, &mut sink()).await?;
    timeline.note("client", format!("has all {} MiB", bytes >> 20));
    deferred.wait_idle().await;

    println!("\nGET /download, aborted");
    drop(send(address, "GET /download").await?);
    timeline.note("client", "has the head, and disconnects");
    deferred.wait_idle().await;

    println!("\nPOST /sign-up/alan, then a graceful shutdown");
    let (status, _) = send(address, "POST /sign-up/alan").await?;
    timeline.note("client", format!("has the response: {status}"));
    drop(stop);
    let report = server.await??;
    timeline.note("server", "has shut down");
    println!("\n{report}");
    Ok(())
}

/// Sends a request and reads the head of the response.
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

/// Prints events with the time since the start.
#[derive(Clone, Copy)]
struct Timeline(Instant);

impl Timeline {
    fn note(&self, subject: &str, event: impl Display) {
        println!(
            "{:>6} ms   {subject:<13} {event}",
            self.0.elapsed().as_millis()
        );
    }
}

impl DeferObserver for Timeline {
    fn finished(&self, callback: &CallbackInfo<'_>, finished: &Finished<'_>) {
        self.note(callback.name().unwrap_or("unnamed"), finished.outcome);
    }

    fn skipped(&self, callback: &CallbackInfo<'_>, completion: &Completion) {
        let status = completion.status().map_or(0, |status| status.as_u16());
        let event = format!("skipped: {status}, {:?}", completion.delivery());
        self.note(callback.name().unwrap_or("unnamed"), event);
    }
}

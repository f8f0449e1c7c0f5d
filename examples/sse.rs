//! Server-sent events that end when the server shuts down: `cargo run --example sse`.
//!
//! A client reads an endless stream until the server shuts down. The client then receives a last
//! event and the end of the response, and the server waits for the callback.

use std::{convert::Infallible, error::Error, time::Duration};

use axum::{
    Router,
    response::sse::{Event, Sse},
    routing::get,
};
use axum_defer::{Completion, DeferLayer, Shutdown, defer};
use futures_util::stream::{self, Stream, StreamExt};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    sync::oneshot,
};

async fn ticks(shutdown: Shutdown) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    defer(|completion: Completion| async move {
        println!(
            "the stream ended: {:?}, after {} bytes",
            completion.delivery(),
            completion.body_bytes()
        );
    })
    .name("log");

    let ticks = stream::iter(1_u64..).then(|tick| async move {
        tokio::time::sleep(Duration::from_millis(10)).await;
        Ok(Event::default().data(format!("tick {tick}")))
    });
    let last = stream::iter([Ok(Event::default().data("shutdown"))]);
    Sse::new(ticks.take_until(shutdown).chain(last))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let app = Router::new()
        .route("/ticks", get(ticks))
        .layer(DeferLayer::new());
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let (stop, stopped) = oneshot::channel::<()>();
    let server = axum_defer::serve(listener, app).with_graceful_shutdown(async {
        let _ = stopped.await;
    });
    let server = tokio::spawn(server.into_future());

    let mut client = BufReader::new(TcpStream::connect(address).await?);
    client
        .write_all(b"GET /ticks HTTP/1.1\r\nhost: localhost\r\n\r\n")
        .await?;
    let mut lines = client.lines();
    while let Some(line) = lines.next_line().await? {
        if line == "data: tick 3" {
            break;
        }
    }
    println!("the client has three events; the server shuts down");
    let _ = stop.send(());

    let mut rest = String::new();
    lines.into_inner().read_to_string(&mut rest).await?;
    assert!(rest.contains("data: shutdown\n\n"), "{rest}");
    // A chunked response that is aborted does not end like this.
    assert!(rest.ends_with("\r\n0\r\n\r\n"), "{rest}");
    println!("the client has the last event and the end of the response");

    let report = server.await??;
    println!("{report}");
    assert!(report.is_complete() && report.succeeded == 1);
    Ok(())
}

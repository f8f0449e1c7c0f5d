//! Server-sent events that end when the server stops, and a callback at their end: `cargo run
//! --example sse`.
//!
//! A client follows a stream that has no end of its own. Then the server is told to stop: the client
//! gets the events so far, a goodbye and the end of the response, the callback runs, and the server
//! has waited for it.

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
            "the stream is over: {:?}, after {} bytes",
            completion.delivery(),
            completion.body_bytes()
        );
    })
    .name("log");

    let ticks = stream::iter(1_u64..).then(|tick| async move {
        tokio::time::sleep(Duration::from_millis(10)).await;
        Ok(Event::default().data(format!("tick {tick}")))
    });
    let goodbye = stream::iter([Ok(Event::default().data("goodbye"))]);
    Sse::new(ticks.take_until(shutdown).chain(goodbye))
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
    println!("the client has three events; the server is told to stop");
    let _ = stop.send(());

    let mut rest = String::new();
    lines.into_inner().read_to_string(&mut rest).await?;
    assert!(rest.contains("data: goodbye\n\n"), "{rest}");
    // How a response in chunks ends; one that was cut off has no such end.
    assert!(rest.ends_with("\r\n0\r\n\r\n"), "{rest}");
    println!("the client has a goodbye, and the end of the response");

    let report = server.await?;
    println!("{report}");
    assert!(report.is_complete() && report.succeeded == 1);
    Ok(())
}

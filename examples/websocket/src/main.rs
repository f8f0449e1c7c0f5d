//! A WebSocket that says goodbye when the server stops: `cargo run`.
//!
//! A client talks to the server, and hears a close frame when the server is told to stop. The
//! server waits for the conversation, because the conversation has a `Shutdown`. What the handler
//! defers runs after the handshake, which is the response; what belongs to the end of the
//! conversation is at its end.

use std::error::Error;

use axum::{
    Router,
    extract::ws::{Message, WebSocket, WebSocketUpgrade},
    response::Response,
    routing::get,
};
use axum_defer::{DeferLayer, Shutdown, defer};
use futures_util::{SinkExt, StreamExt};
use tokio::{net::TcpListener, sync::oneshot};
use tokio_tungstenite::{connect_async, tungstenite};

/// Answered with the handshake, which is the whole response: callbacks run then, and not when the
/// conversation is over.
async fn logged_chat(upgrade: WebSocketUpgrade, shutdown: Shutdown) -> Response {
    defer(async { println!("deferred: the handshake is out") }).name("log");
    chat(upgrade, shutdown).await
}

async fn chat(upgrade: WebSocketUpgrade, shutdown: Shutdown) -> Response {
    upgrade.on_upgrade(|socket| talk(socket, shutdown))
}

async fn talk(mut socket: WebSocket, mut shutdown: Shutdown) {
    loop {
        tokio::select! {
            message = socket.recv() => match message {
                Some(Ok(Message::Text(text))) => {
                    let _ = socket.send(Message::Text(text)).await;
                }
                Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                Some(Ok(_)) => {}
            },
            () = &mut shutdown => {
                let _ = socket.send(Message::Close(None)).await;
                return;
            }
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let layer = DeferLayer::new();
    let deferred = layer.handle();
    let app = Router::new().route("/chat", get(logged_chat)).layer(layer);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let (stop, stopped) = oneshot::channel::<()>();
    let server = axum_defer::serve(listener, app).with_graceful_shutdown(async {
        let _ = stopped.await;
    });
    let server = tokio::spawn(server.into_future());

    let (mut client, _) = connect_async(format!("ws://{address}/chat")).await?;
    deferred.wait_idle().await;
    client.send(tungstenite::Message::text("hello")).await?;
    let answer = client.next().await.ok_or("no answer")??;
    println!("the server has answered: {answer}");
    assert_eq!(answer, tungstenite::Message::text("hello"));

    let _ = stop.send(());
    let goodbye = client.next().await.ok_or("no goodbye")??;
    assert!(goodbye.is_close(), "{goodbye:?}");
    println!("the server has said goodbye");
    drop(client);

    let report = server.await??;
    println!("{report}");
    assert!(report.is_complete());
    Ok(())
}

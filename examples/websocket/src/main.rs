//! A WebSocket that is closed when the server shuts down: `cargo run`.
//!
//! A client talks to the server and receives a close frame when the server shuts down. The server
//! waits for the conversation, because the conversation holds a `Shutdown`.

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

/// The handshake is the whole response, so callbacks run after it and not after the conversation.
/// Put work for the end of the conversation at the end of `talk`.
async fn logged_chat(upgrade: WebSocketUpgrade, shutdown: Shutdown) -> Response {
    defer(async { println!("deferred: the handshake has been sent") }).name("log");
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
    let reply = client.next().await.ok_or("no reply")??;
    println!("reply: {reply}");
    assert_eq!(reply, tungstenite::Message::text("hello"));

    let _ = stop.send(());
    let close = client.next().await.ok_or("no close frame")??;
    assert!(close.is_close(), "{close:?}");
    println!("received a close frame");
    drop(client);

    let report = server.await??;
    println!("{report}");
    assert!(report.is_complete());
    Ok(())
}

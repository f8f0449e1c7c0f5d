//! An app on AWS Lambda, which freezes the process when the runtime and all extensions have requested
//! the next event. An extension in the same process requests it after all callbacks have run.

use std::{env, sync::Arc};

use axum::{Router, routing::post};
use axum_defer::{DeferLayer, defer};
use lambda_extension::{Extension, LambdaEvent};
use lambda_http::{Error, service_fn};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::{Mutex, mpsc},
};

async fn place_order() -> &'static str {
    for letter in ["receipt", "invoice", "survey"] {
        defer(mail(letter)).name(letter);
    }
    "thank you"
}

/// Sends a letter to the server at `MAIL_SERVER` and waits for its acknowledgment.
async fn mail(letter: &'static str) -> std::io::Result<()> {
    let address = env::var("MAIL_SERVER").map_err(std::io::Error::other)?;
    let mut server = TcpStream::connect(address).await?;
    server.write_all(letter.as_bytes()).await?;
    server.shutdown().await?;
    server.read_u8().await?;
    Ok(())
}

fn app(layer: DeferLayer) -> Router {
    Router::new()
        .route("/orders", post(place_order))
        .layer(layer)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    if env::var_os("WITHOUT_WAIT_UNTIL").is_some() {
        // For comparison: callbacks continue only when the next event arrives.
        return lambda_http::run(app(DeferLayer::new())).await;
    }
    let (sender, receiver) = mpsc::unbounded_channel();
    let layer = DeferLayer::new().wait_until(move |_, idle| {
        // The receiver lives as long as the extension.
        let _ = sender.send(idle);
    });
    let receiver = Arc::new(Mutex::new(receiver));
    // Extensions must be registered before the runtime requests its first event.
    let extension = Extension::new()
        .with_events(&["INVOKE"])
        .with_events_processor(service_fn(move |_: LambdaEvent| {
            let receiver = receiver.clone();
            async move {
                // Lambda sends one event per request.
                if let Some(idle) = receiver.lock().await.recv().await {
                    idle.await;
                }
                Ok::<_, Error>(())
            }
        }))
        .register()
        .await?;
    tokio::try_join!(lambda_http::run(app(layer)), extension.run())?;
    Ok(())
}

//! An app on AWS Lambda, where the process is frozen once everybody has asked for the next event:
//! an extension in the same process, which asks when everything deferred is over.

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

/// One letter to the server at `MAIL_SERVER`, which says when it has it.
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
        // What the test compares with: callbacks go on when the next event comes, if one does.
        return lambda_http::run(app(DeferLayer::new())).await;
    }
    let (requests, answered) = mpsc::unbounded_channel();
    let layer = DeferLayer::new().wait_until(move |_, idle| {
        // There is somebody to take it for as long as there are requests.
        let _ = requests.send(idle);
    });
    let answered = Arc::new(Mutex::new(answered));
    // It has to be registered before the runtime asks for its first event.
    let extension = Extension::new()
        .with_events(&["INVOKE"])
        .with_events_processor(service_fn(move |_: LambdaEvent| {
            let answered = answered.clone();
            async move {
                // Lambda sends an event when there is no other: each comes with one request.
                if let Some(idle) = answered.lock().await.recv().await {
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

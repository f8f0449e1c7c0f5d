//! An app on Vercel, whose runtime ends an invocation with its response by default.

use std::env;

use axum::{
    Router,
    routing::{get, post},
};
use axum_defer::{DeferLayer, defer};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tower::{Layer, util::MapRequestLayer};
use vercel_runtime::{AppState, Error, Request, axum::VercelLayer};

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

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let mut layer = DeferLayer::new();
    // For comparison: without `wait_until`, the invocation ends with the response.
    if env::var_os("WITHOUT_WAIT_UNTIL").is_none() {
        layer = layer.wait_until(|extensions, idle| {
            if let Some(state) = extensions.get::<AppState>() {
                state.wait_until(idle);
            }
        });
    }
    let app = Router::new()
        .route("/", get(|| async { "hello" }))
        .route("/orders", post(place_order))
        .layer(layer);
    // `VercelLayer` drops the state, so it is copied to the extensions first.
    let with_state = MapRequestLayer::new(|(state, mut request): (AppState, Request)| {
        request.extensions_mut().insert(state.clone());
        (state, request)
    });
    vercel_runtime::run(with_state.layer(VercelLayer::new().layer(app))).await
}

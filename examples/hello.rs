//! A minimal server: `cargo run --example hello`, then
//! `curl -X POST http://127.0.0.1:3000/sign-up`.

use axum::{Router, routing::post};
use axum_defer::{DeferLayer, defer};

async fn sign_up() -> &'static str {
    defer(async { println!("the response has been sent: sending the welcome mail") });
    "welcome\n"
}

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let port = std::env::var("PORT").unwrap_or("3000".to_owned());
    let app = Router::new()
        .route("/sign-up", post(sign_up))
        .layer(DeferLayer::new());
    let listener = tokio::net::TcpListener::bind(format!("127.0.0.1:{port}")).await?;
    println!("listening on http://{}", listener.local_addr()?);
    axum_defer::serve(listener, app).await
}

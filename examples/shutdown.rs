//! A graceful shutdown that waits for callbacks.
//!
//! `cargo run --example shutdown`, then `curl -d grace http://127.0.0.1:3000/sign-up`, and Ctrl-C
//! or SIGTERM within three seconds. The server stops accepting connections, waits for responses and
//! their callbacks, and prints a report. It exits with 1 if a callback did not finish.

use std::{io, process::ExitCode, time::Duration};

use axum::{Router, routing::post};
use axum_defer::{DeferLayer, defer, shutdown_signal};

async fn sign_up(name: String) -> &'static str {
    defer(async move {
        tokio::time::sleep(Duration::from_secs(3)).await;
        println!("sent the welcome mail to {name}");
    })
    .name("welcome mail");
    "welcome\n"
}

#[tokio::main]
async fn main() -> io::Result<ExitCode> {
    let port = std::env::var("PORT").unwrap_or("3000".to_owned());
    let app = Router::new()
        .route("/sign-up", post(sign_up))
        .layer(DeferLayer::new());
    let listener = tokio::net::TcpListener::bind(format!("127.0.0.1:{port}")).await?;
    println!("listening on http://{}", listener.local_addr()?);
    let report = axum_defer::serve(listener, app)
        .with_graceful_shutdown(async {
            shutdown_signal().await;
            println!("shutting down");
        })
        // Below the time that the process supervisor waits before it kills the process.
        .drain_timeout(Duration::from_secs(20))
        .await?;
    println!("{report}");
    Ok(if report.is_complete() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

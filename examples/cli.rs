//! A command-line tool whose callbacks run before it exits. The exit code decides which ones.
//!
//! `cargo run --example cli` succeeds; `cargo run --example cli -- missing.csv` fails.

use std::{error::Error, process::ExitCode};

use axum_defer::{defer, defer_blocking, scope};

#[tokio::main]
async fn main() -> ExitCode {
    let file = std::env::args().nth(1);
    scope(async {
        match import(file.as_deref().unwrap_or("Cargo.toml")).await {
            Ok(lines) => {
                println!("imported {lines} lines");
                ExitCode::SUCCESS
            }
            Err(error) => {
                println!("the import failed: {error}");
                ExitCode::FAILURE
            }
        }
    })
    .await
}

/// Works in any scope, including that of a request.
async fn import(file: &str) -> Result<usize, Box<dyn Error>> {
    defer(async { println!("deferred: refresh the cache") });
    defer_blocking(|| println!("deferred: remove the temporary files")).always();

    let text = tokio::fs::read_to_string(file).await?;
    Ok(text.lines().count())
}

//! Work that must survive a crash: an outbox in SQLite, which a deferred callback drains after the
//! response.

use std::{env, error::Error, process::ExitCode, time::Duration};

use axum::{Router, routing::post};
use axum_defer::{DeferLayer, defer};
use tokio::{
    net::TcpListener,
    time::{MissedTickBehavior, interval},
};

use crate::{mail::Mail, orders::App, relay::Relay};

mod database;
mod mail;
mod orders;
mod relay;

#[tokio::main]
async fn main() -> Result<ExitCode, Box<dyn Error>> {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .init();
    let port = env::var("PORT").unwrap_or("3000".to_owned());
    let path = env::var("DATABASE").unwrap_or("outbox.db".to_owned());
    let send_time = env::var("MAIL_MILLISECONDS").map_or(Ok(20), |time| time.parse())?;

    let database = database::open(path).await?;
    let mail = Mail::new(database.clone(), Duration::from_millis(send_time));
    let relay = Relay::new(database.clone(), mail).await?;

    let layer = DeferLayer::new();
    tokio::spawn(sweep(layer.clone(), relay.clone()));
    let app = Router::new()
        .route("/orders", post(orders::create))
        .with_state(App { database, relay })
        .layer(layer);
    let listener = TcpListener::bind(format!("127.0.0.1:{port}")).await?;
    println!("listening on http://{}", listener.local_addr()?);
    let report = axum_defer::serve(listener, app)
        .with_graceful_shutdown(axum_defer::shutdown_signal())
        // The next start runs what is left.
        .drain_timeout(Duration::from_secs(20))
        .await?;
    println!("{report}");
    Ok(if report.is_complete() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Sweeps the outbox at startup and every minute.
async fn sweep(layer: DeferLayer, relay: Relay) {
    let mut minute = interval(Duration::from_secs(60));
    minute.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        minute.tick().await;
        let relay = relay.clone();
        // A callback is isolated: if it panics, the panic is reported, and this loop continues.
        layer
            .scope(async {
                defer(relay.clone().limit_delays()).name("delays");
                relay.defer_drain();
            })
            .await;
    }
}

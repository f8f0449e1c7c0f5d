//! Work that a crash must not lose: an outbox in SQLite, and `defer` to see to it at once.

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
    let mail_takes = env::var("MAIL_MILLISECONDS").map_or(Ok(20), |takes| takes.parse())?;

    let database = database::open(path).await?;
    let mail = Mail::new(database.clone(), Duration::from_millis(mail_takes));
    let relay = Relay::new(database.clone(), mail).await?;

    let deferred = DeferLayer::new();
    tokio::spawn(sweep(deferred.clone(), relay.clone()));
    let app = Router::new()
        .route("/orders", post(orders::place))
        .with_state(App { database, relay })
        .layer(deferred);
    let listener = TcpListener::bind(format!("127.0.0.1:{port}")).await?;
    println!("listening on http://{}", listener.local_addr()?);
    let report = axum_defer::serve(listener, app)
        .with_graceful_shutdown(stop_signal())
        // What is not done by then is done after the next start.
        .drain_timeout(Duration::from_secs(20))
        .await?;
    println!("{report}");
    Ok(if report.is_complete() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// At the start and every minute: does what a crash left, and what is to be tried again.
async fn sweep(deferred: DeferLayer, relay: Relay) {
    let mut minute = interval(Duration::from_secs(60));
    minute.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        minute.tick().await;
        let relay = relay.clone();
        // As a callback, it is isolated: one that panics is reported, and the next minute comes.
        deferred
            .scope(async {
                defer(relay.drain()).name("sweep");
            })
            .await;
    }
}

async fn stop_signal() {
    let interrupt = tokio::signal::ctrl_c();
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate()).expect("a handler can be installed");
        tokio::select! {
            _ = interrupt => {}
            _ = terminate.recv() => {}
        }
    }
    #[cfg(not(unix))]
    let _ = interrupt.await;
    println!("stopping");
}

//! Work that a crash must not lose: jobs in Postgres, done by as many processes as there are.

use std::{env, error::Error, process::ExitCode, time::Duration};

use axum::{
    Router,
    routing::{get, post},
};
use axum_defer::DeferLayer;
use graphile_worker::{Worker, WorkerOptions};
use sqlx::{PgPool, postgres::PgPoolOptions};
use tokio::net::TcpListener;

use crate::{
    mail::Mail,
    orders::{App, Total},
    receipt::SendReceipt,
};

mod mail;
mod orders;
mod receipt;

#[tokio::main]
async fn main() -> Result<ExitCode, Box<dyn Error>> {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .init();
    let port = env::var("PORT").unwrap_or("3000".to_owned());
    let url = env::var("DATABASE_URL").map_err(|_| "no DATABASE_URL: ./with-postgres cargo run")?;
    let mail_takes = milliseconds("MAIL_MILLISECONDS", 20)?;
    let lost_after = milliseconds("LOST_AFTER_MILLISECONDS", 30_000)?;

    let database = PgPoolOptions::new()
        .max_connections(10)
        .connect(&url)
        .await?;
    sqlx::raw_sql(include_str!("schema.sql"))
        .execute(&database)
        .await?;
    let mail = Mail::new(database.clone(), mail_takes);
    let worker = worker(database.clone(), mail, lost_after).await?;

    let total = Total::default();
    total.clone().refresh(database.clone()).await?;
    let app = Router::new()
        .route("/orders", post(orders::place))
        .route("/", get(orders::total))
        .with_state(App {
            database,
            queue: worker.create_utils(),
            total,
        })
        .layer(DeferLayer::new());
    let listener = TcpListener::bind(format!("127.0.0.1:{port}")).await?;
    println!("listening on http://{}", listener.local_addr()?);
    let server = axum_defer::serve(listener, app)
        .with_graceful_shutdown(stop_signal())
        .drain_timeout(Duration::from_secs(20));

    // A worker that fails ends the process, which its supervisor starts again: a server whose jobs
    // nobody does would look healthy.
    let (report, ()) = tokio::try_join!(async { Ok(server.await?) }, async {
        worker.run().await.map_err(Box::<dyn Error>::from)
    },)?;
    println!("{report}");
    Ok(if report.is_complete() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// A worker whose jobs others take over when nothing was heard of it for `lost_after`.
async fn worker(
    database: PgPool,
    mail: Mail,
    lost_after: Duration,
) -> Result<Worker, Box<dyn Error>> {
    let worker = WorkerOptions::default()
        .pg_pool(database)
        .concurrency(2)
        .define_job::<SendReceipt>()
        .add_extension(mail)
        // All that is behind this line is off by default: the jobs of a process that is gone
        // would be locked for four hours.
        .heartbeat_interval(lost_after / 6)
        .sweep_interval(lost_after / 6)
        .sweep_threshold(lost_after)
        .recovery_delay(Duration::ZERO)
        .listen_os_shutdown_signals(false)
        .shutdown_signal(stop_signal())
        .shutdown_grace_period(Duration::from_secs(15))
        .init()
        .await?;
    Ok(worker)
}

fn milliseconds(variable: &str, default: u64) -> Result<Duration, Box<dyn Error>> {
    let milliseconds = env::var(variable).map_or(Ok(default), |set| set.parse())?;
    Ok(Duration::from_millis(milliseconds))
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
}

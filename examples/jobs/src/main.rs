//! Work that must survive a crash: jobs in Postgres, run by any number of processes.

use std::{env, error::Error, process::ExitCode, time::Duration};

use axum::{
    Router,
    routing::{get, post},
};
use axum_defer::DeferLayer;
use futures_util::FutureExt;
use graphile_worker::{Database, LocalQueueConfig, Worker, WorkerOptions, sqlx::SqlxDatabase};
use sqlx::{PgPool, postgres::PgPoolOptions};
use tokio::{net::TcpListener, sync::oneshot, time::timeout};

use crate::{
    listener::ReconnectingDatabase,
    mail::Mail,
    orders::{App, Total},
    receipt::SendReceipt,
};

mod listener;
mod mail;
mod orders;
mod receipt;

#[tokio::main]
async fn main() -> Result<ExitCode, Box<dyn Error>> {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .init();
    let port = env::var("PORT").unwrap_or("3000".to_owned());
    let url = env::var("DATABASE_URL")
        .map_err(|_| "set DATABASE_URL, or use ./with-postgres cargo run")?;
    let database = PgPoolOptions::new()
        .max_connections(10)
        // Bounds how long requests and a shutdown wait during an outage. The default is 30 seconds.
        .acquire_timeout(Duration::from_secs(5))
        .connect(&url)
        .await?;
    sqlx::raw_sql(include_str!("schema.sql"))
        .execute(&database)
        .await?;
    // Shared, because a signal that arrives while only one of two handlers is installed would stop
    // only the server or only the worker.
    let shutdown = axum_defer::shutdown_signal().shared();
    let worker = worker(database.clone(), shutdown.clone()).await?;

    let total = Total::default();
    total.clone().refresh(database.clone()).await?;
    let app = Router::new()
        .route("/orders", post(orders::create))
        .route("/", get(orders::total))
        .with_state(App {
            database,
            queue: worker.create_utils(),
            total,
        })
        .layer(DeferLayer::new());
    let listener = TcpListener::bind(format!("127.0.0.1:{port}")).await?;
    println!("listening on http://{}", listener.local_addr()?);

    let (worker_guard, worker_ended) = oneshot::channel::<()>();
    let worker = tokio::spawn(async move {
        let _guard = worker_guard;
        worker.run().await
    });
    let report = axum_defer::serve(listener, app)
        // If the worker fails, the server stops too, because it would accept orders whose jobs do
        // not run. The process supervisor starts the process again.
        .with_graceful_shutdown(async {
            tokio::select! {
                () = shutdown => {}
                _ = worker_ended => {}
            }
        })
        .drain_timeout(Duration::from_secs(20))
        .await?;
    println!("{report}");
    // During an outage, the worker retries for minutes to unlock its jobs. After `lost_after`, other
    // processes take them over.
    match timeout(Duration::from_secs(20), worker).await {
        Ok(result) => result??,
        Err(_) => return Err("the worker did not stop in time".into()),
    }
    Ok(if report.is_complete() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

async fn worker(
    database: PgPool,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<Worker, Box<dyn Error>> {
    let send_time = milliseconds("MAIL_MILLISECONDS", 20)?;
    let poll_interval = milliseconds("POLL_MILLISECONDS", 1_000)?;
    let lost_after = milliseconds("LOST_AFTER_MILLISECONDS", 30_000)?;
    let driver = ReconnectingDatabase(SqlxDatabase::new(database.clone()));
    let worker = WorkerOptions::default()
        .database(Database::new(driver))
        .concurrency(2)
        .define_job::<SendReceipt>()
        .add_extension(Mail::new(database, send_time))
        // Without a local queue, a worker that has finished a job waits for the next poll.
        .local_queue(LocalQueueConfig::default().with_size(4))
        .poll_interval(poll_interval)
        // These options enable recovery. Without it, the jobs of a crashed process stay locked for
        // four hours.
        .heartbeat_interval(lost_after / 6)
        .sweep_interval(lost_after / 6)
        .sweep_threshold(lost_after)
        .recovery_delay(Duration::ZERO)
        .listen_os_shutdown_signals(false)
        .shutdown_signal(shutdown)
        .shutdown_grace_period(Duration::from_secs(15))
        .init()
        .await?;
    Ok(worker)
}

fn milliseconds(variable: &str, default: u64) -> Result<Duration, Box<dyn Error>> {
    let milliseconds = env::var(variable).map_or(Ok(default), |value| value.parse())?;
    Ok(Duration::from_millis(milliseconds))
}

//! A worker that takes jobs from a queue: one scope per job, with limits and a drain.
//!
//! `cargo run --example queue_worker` runs a few jobs and exits. Each job runs in
//! `DeferLayer::scope`, so jobs share the timeout and the observer of the layer, and its handle
//! counts the callbacks of all jobs.

use std::time::Duration;

use axum_defer::{CallbackInfo, DeferLayer, DeferObserver, Finished, defer};
use tokio::sync::mpsc;

struct Job {
    id: u32,
    address: &'static str,
}

/// Runs a job. `defer` finds the job's scope automatically.
async fn run(job: &Job) -> Result<(), String> {
    let id = job.id;
    defer(async move { println!("job {id}: notify the customer") }).name("notify");
    defer(async move { println!("job {id}: release the license") })
        .name("release")
        .always();
    defer(std::future::pending::<()>())
        .name("hangs")
        .when(move |_| id == 3);

    if !job.address.contains('@') {
        return Err(format!("{:?} is not an address", job.address));
    }
    Ok(())
}

struct FailureLog;

impl DeferObserver for FailureLog {
    fn finished(&self, callback: &CallbackInfo<'_>, finished: &Finished<'_>) {
        if !finished.is_ok() {
            let name = callback.name().unwrap_or("unnamed");
            println!("callback {name:?} failed: {}", finished.outcome);
        }
    }
}

#[tokio::main]
async fn main() {
    let (queue, mut jobs) = mpsc::channel(16);
    tokio::spawn(async move {
        for (id, address) in (1..).zip(["ada@example.org", "nowhere", "alan@example.org"]) {
            let _ = queue.send(Job { id, address }).await;
        }
    });

    let layer = DeferLayer::new()
        .timeout(Duration::from_millis(100))
        .observer(FailureLog);
    while let Some(job) = jobs.recv().await {
        // Returns after the callbacks have run. To take the next job immediately, spawn this.
        match layer.scope(run(&job)).await {
            Ok(()) => println!("job {}: done", job.id),
            Err(error) => println!("job {}: returned to the queue, {error}", job.id),
        }
    }

    let report = layer.handle().drain(Duration::from_secs(10)).await;
    println!("complete: {}", report.is_complete());
}

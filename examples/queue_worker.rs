//! A worker that takes jobs from a queue: one scope per job, with limits and a drain.
//!
//! `cargo run --example queue_worker` works off a few jobs, and exits. Each job runs in
//! `DeferLayer::scope`, so jobs share the time-out and the observer of the layer, and its handle
//! counts the callbacks of all of them.

use std::time::Duration;

use axum_defer::{CallbackInfo, DeferLayer, DeferObserver, Finished, defer};
use tokio::sync::mpsc;

struct Job {
    id: u32,
    address: &'static str,
}

/// What the job is about; `defer` finds the scope of the job by itself.
async fn work(job: &Job) -> Result<(), String> {
    let id = job.id;
    defer(async move { println!("job {id}: tell the customer") }).name("tell");
    defer(async move { println!("job {id}: give the licence back") })
        .name("give back")
        .always();
    defer(std::future::pending::<()>())
        .name("hangs")
        .when(move |_| id == 3);

    if !job.address.contains('@') {
        return Err(format!("{:?} is no address", job.address));
    }
    Ok(())
}

struct Complaints;

impl DeferObserver for Complaints {
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

    let scopes = DeferLayer::new()
        .timeout(Duration::from_millis(100))
        .observer(Complaints);
    while let Some(job) = jobs.recv().await {
        // Returns when the callbacks have run too. To take the next job at once, spawn this.
        match scopes.scope(work(&job)).await {
            Ok(()) => println!("job {}: done", job.id),
            Err(error) => println!("job {}: back to the queue, {error}", job.id),
        }
    }

    let report = scopes.handle().drain(Duration::from_secs(10)).await;
    println!("nothing is left: {}", report.is_complete());
}

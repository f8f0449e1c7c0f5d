//! Runs many seeds of the simulation, on every core:
//!
//! ```sh
//! cargo run --release --no-default-features --features memory --bin simulate -- FIRST COUNT
//! ```

use std::{
    process::ExitCode,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use axum_defer_fuzz::simulation::{ENDS, Options, run};

/// Failures that are printed.
const PRINTED: u64 = 50;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let mut number = |default: u64| {
        let argument = arguments.next();
        argument.map_or(default, |text| {
            text.parse().expect("FIRST and COUNT are numbers")
        })
    };
    let totals = Mutex::new([0; ENDS.len()]);
    let (first, count) = (number(0), number(2_000));
    let options = Options {
        panics: cfg!(panic = "unwind"),
    };
    let [next, failed, requests, callbacks] = [const { AtomicU64::new(0) }; 4];
    let start = Instant::now();
    let work = || {
        // Whatever is allocated once is there after a few runs.
        let warm_up = if count == 1 { 0 } else { 20 };
        for seed in 0..warm_up {
            run(seed, options);
        }
        loop {
            let index = next.fetch_add(1, Relaxed);
            if index >= count {
                break;
            }
            let seed = first + index;
            let watched = Watched::new(seed);
            let (outcome, mut left) = measured(|| run(seed, options));
            drop(watched);
            if left > 0 {
                // What is allocated once is not allocated again.
                left = left.min(measured(|| run(seed, options)).1);
            }
            requests.fetch_add(outcome.requests, Relaxed);
            callbacks.fetch_add(outcome.callbacks, Relaxed);
            let mut violations = outcome.violations;
            let mut totals = totals.lock().unwrap_or_else(PoisonError::into_inner);
            for (total, count) in totals.iter_mut().zip(outcome.ends) {
                *total += count;
            }
            drop(totals);
            // A violation is itself memory that is left.
            if left > 0 && violations.is_empty() {
                violations.push(format!("{left} bytes were not freed"));
            }
            if !violations.is_empty() && failed.fetch_add(1, Relaxed) < PRINTED {
                println!("SIMULATION_SEED={seed}");
                violations
                    .iter()
                    .for_each(|violation| println!("    {violation}"));
            }
        }
    };
    let cores = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|threads| {
        for _ in 0..cores {
            threads.spawn(work);
        }
    });
    let [failed, requests, callbacks] = [failed, requests, callbacks].map(AtomicU64::into_inner);
    for (end, total) in ENDS.iter().zip(totals.into_inner().unwrap_or_default()) {
        println!("{end}: {total}");
    }
    println!(
        "simulation: seeds {first} to {}, {requests} requests, {callbacks} callbacks, {failed} failed, {:?}",
        first + count - 1,
        start.elapsed()
    );
    match failed {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

/// Ends the process if a run spins, which no clock of the run would show.
struct Watched {
    _over: std::sync::mpsc::Sender<()>,
}

impl Watched {
    fn new(seed: u64) -> Self {
        let (over, is_over) = std::sync::mpsc::channel::<()>();
        thread::spawn(move || {
            let limit = Duration::from_secs(60);
            if is_over.recv_timeout(limit) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                println!("SIMULATION_SEED={seed} takes more than {limit:?}");
                std::process::exit(1);
            }
        });
        Self { _over: over }
    }
}

#[cfg(feature = "memory")]
fn measured<T>(f: impl FnOnce() -> T) -> (T, i64) {
    let mut result = None;
    let measured = allocation_counter::measure(|| result = Some(f()));
    (result.expect("it was called"), measured.bytes_current)
}

#[cfg(not(feature = "memory"))]
fn measured<T>(f: impl FnOnce() -> T) -> (T, i64) {
    (f(), 0)
}

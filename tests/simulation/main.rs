//! Seeded runs of `axum_defer::serve` and its clients on a simulated network and clock.
//!
//! `SIMULATION_SEEDS` sets how many seeds are run, `SIMULATION_SEED` runs one of them, and with
//! `SIMULATION_TRACE` a run prints its events.

#![cfg(feature = "serve")]

#[path = "mod.rs"]
mod simulation;

use std::{io::Write, process::exit, sync::mpsc, thread, time::Duration};

use simulation::{ENDS, Options, Outcome, panics::from_h2};

const SEEDS: u64 = 400;

/// Seeds that have found a fault, run beside the others. They find it again only as long as the
/// simulation draws the same decisions, so each fault has a test of its own, too.
const REGRESSIONS: &[u64] = &[];

fn run(seed: u64) -> Outcome {
    simulation::run(seed, Options { panics: true })
}

fn number_from(variable: &str) -> Option<u64> {
    let value = std::env::var(variable).ok()?;
    Some(value.parse().expect("a number"))
}

/// The output of `println` is kept by the test harness.
fn report(text: std::fmt::Arguments<'_>) {
    let _ = writeln!(std::io::stdout(), "simulation: {text}");
}

/// Ends the process if a run never comes back: a task that spins stops the clock of the run.
fn watched<T>(seed: u64, run: impl FnOnce() -> T) -> T {
    let (over, is_over) = mpsc::channel::<()>();
    thread::spawn(move || {
        let limit = Duration::from_secs(120);
        if is_over.recv_timeout(limit) == Err(mpsc::RecvTimeoutError::Timeout) {
            report(format_args!("{} does not end", replay(seed)));
            exit(1);
        }
    });
    let result = run();
    drop(over);
    result
}

fn replay(seed: u64) -> String {
    format!("SIMULATION_SEED={seed} cargo test --all-features --test simulation seeds")
}

/// Runs these seeds, and reports those that fail.
fn run_all(seeds: &[u64]) -> [u64; ENDS.len()] {
    let (mut failed, mut requests, mut callbacks) = (0, 0, 0);
    let mut ends = [0; ENDS.len()];
    for seed in seeds {
        let outcome = watched(*seed, || run(*seed));
        requests += outcome.requests;
        callbacks += outcome.callbacks;
        for (total, count) in ends.iter_mut().zip(outcome.ends) {
            *total += count;
        }
        if !outcome.violations.is_empty() {
            failed += 1;
            report(format_args!("{}", replay(*seed)));
            for violation in outcome.violations {
                report(format_args!("    {violation}"));
            }
        }
    }
    let count = seeds.len();
    report(format_args!(
        "{count} seeds, {requests} requests, {callbacks} callbacks, {failed} failed"
    ));
    assert_eq!(failed, 0, "failed seeds, with their replay above");
    ends
}

#[test]
fn seeds_break_no_rule() {
    if let Some(seed) = number_from("SIMULATION_SEED") {
        run_all(&[seed]);
        return;
    }
    let count = number_from("SIMULATION_SEEDS").unwrap_or(SEEDS);
    let seeds: Vec<u64> = REGRESSIONS.iter().copied().chain(0..count).collect();
    for (end, total) in ENDS.iter().zip(run_all(&seeds)) {
        assert!(count < 500 || total > 0, "no run had the end {end}");
    }
}

#[test]
fn same_seed_gives_same_run() {
    for seed in 0..50 {
        let trace = run(seed).trace;
        for _ in 0..4 {
            // Shifts the ids of all tasks, as another test in this process may.
            drop(tokio::task::LocalSet::new().spawn_local(async {}));
            assert_eq!(run(seed).trace, trace, "seed {seed}");
        }
    }
}

#[test]
fn memory_returns_to_its_start() {
    // Whatever is allocated once per process is allocated by these.
    for seed in 0..50 {
        run(seed);
    }
    let left = |seed| {
        let panics = from_h2();
        let measured = allocation_counter::measure(|| {
            run(seed);
        });
        match from_h2() == panics {
            true => measured.bytes_current,
            false => 0,
        }
    };
    for seed in 0..200 {
        // What is allocated once is not allocated again.
        let left = left(seed).min(left(seed));
        assert!(left <= 0, "seed {seed} leaves {left} bytes");
    }
}

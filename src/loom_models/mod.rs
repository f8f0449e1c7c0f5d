//! Models of the state machines, in every interleaving of two or three threads.
//!
//! Run them with the command in `CONTRIBUTING.md`. loom replaces the lock and the atomics of
//! [`sync`](crate::sync), runs each model in every order of their accesses, and fails on a deadlock.
//! At the end of each execution, [`RunRecord::close`](run_record::RunRecord::close) checks that each
//! callback ended exactly once, that no two callbacks of a scope ran at once, that nothing is
//! pending, running, or listed, and that every scope was dropped.
//!
//! loom does not see the reference counts of `std::sync::Arc`, Tokio's clock, and its runtime handle.
//! No decision depends on the last two. If one depends on a reference count, the model calls
//! [`RunRecord::pass`](run_record::RunRecord::pass) next to it, which is a step that loom orders.

use std::{
    io::Write,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use loom::model::Builder;

use crate::sync::loom_runtime;

mod before_response;
mod drain;
pub(crate) mod run_record;
mod scope;

/// Runs `model` in all interleavings, and prints their number.
pub(crate) fn explore(name: &str, model: impl Fn() + Send + Sync + 'static) {
    explore_within(None, name, model);
}

/// Like [`explore`], but limits the preemptions per execution, because all would take too long.
pub(crate) fn explore_within(
    preemptions: impl Into<Option<usize>>,
    name: &str,
    model: impl Fn() + Send + Sync + 'static,
) {
    let mut builder = Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(preemptions.into());
    let bound = match builder.preemption_bound {
        Some(bound) => format!(" of at most {bound} preemptions"),
        None => String::new(),
    };
    let executions = Arc::new(AtomicUsize::new(0));
    let counted = executions.clone();
    builder.check(move || {
        counted.fetch_add(1, SeqCst);
        loom_runtime::reset();
        model();
    });
    // The test harness captures `println`.
    let count = executions.load(SeqCst);
    let _ = writeln!(
        std::io::stdout(),
        "model {name}: {count} interleavings{bound}"
    );
}

//! The state machines, in every interleaving of two or three threads.
//!
//! Run it with the command in `CONTRIBUTING.md`. loom replaces the lock and the atomics of
//! [`sync`](crate::sync), runs each model once per order in which its threads can take them, and
//! fails on a deadlock. At the end of every execution the [`Ledger`](ledger::Ledger) is closed:
//! each callback has ended exactly once, none runs beside another of its scope, nothing is
//! pending, running or listed, and every scope is gone.
//!
//! What loom can't see are the reference counts of `std::sync::Arc`, Tokio's clock and its handle on a
//! runtime. No decision hangs on the last two. Where one does
//! hang on a reference count, [`Ledger::pass`](ledger::Ledger::pass) stands beside it: a step that
//! loom orders.

use std::{
    io::Write,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use loom::model::Builder;

use crate::sync::modelled_runtime;

mod before_response;
mod drain;
pub(crate) mod ledger;
mod scope;

/// Runs `model` in all of its interleavings, and says how many that were.
pub(crate) fn explore(name: &str, model: impl Fn() + Send + Sync + 'static) {
    explore_within(None, name, model);
}

/// Like [`explore`], with at most so many preemptions per execution where all would take too long.
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
        modelled_runtime::reset();
        model();
    });
    // Not `println`, which the test harness keeps to itself.
    let count = executions.load(SeqCst);
    let _ = writeln!(
        std::io::stdout(),
        "model {name}: {count} interleavings{bound}"
    );
}

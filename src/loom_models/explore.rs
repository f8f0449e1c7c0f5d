//! Runs models in all interleavings.

use std::{
    io::Write,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use loom::model::Builder;

use crate::sync::loom_runtime;

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

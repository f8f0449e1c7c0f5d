//! The runtime of the models: each task is a thread of loom.

#![cfg_attr(
    axum_defer_shuttle,
    allow(dead_code, reason = "the models with many threads use a part")
)]

use std::{
    cell::{Cell, RefCell},
    future::Future,
};

use loom::thread::JoinHandle;

/// The fate of a spawned task.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Runtime {
    Runs,
    IsShuttingDown,
}

thread_local! {
    // loom runs all threads of a model as coroutines of one thread, so there is one per execution.
    static TASKS: RefCell<Vec<JoinHandle<()>>> = const { RefCell::new(Vec::new()) };
    static RUNTIME: Cell<Runtime> = const { Cell::new(Runtime::Runs) };
}

/// Replaces `Handle::spawn` in models.
pub(crate) fn spawn(task: impl Future<Output = ()> + Send + 'static) {
    match RUNTIME.get() {
        Runtime::Runs => {
            let thread = loom::thread::spawn(move || loom::future::block_on(task));
            TASKS.with_borrow_mut(|tasks| tasks.push(thread));
        }
        Runtime::IsShuttingDown => drop(task),
    }
}

/// Drops tasks that are spawned from now on.
pub(crate) fn shut_down() {
    RUNTIME.set(Runtime::IsShuttingDown);
}

/// Waits for all tasks, including those that other tasks spawn.
pub(crate) fn join_all() {
    loop {
        let Some(task) = TASKS.with_borrow_mut(Vec::pop) else {
            break;
        };
        task.join().unwrap();
    }
}

/// Removes the state of a previous execution that failed.
pub(crate) fn reset() {
    TASKS.take();
    RUNTIME.set(Runtime::Runs);
}

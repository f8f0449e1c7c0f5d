//! The runtime of the models: each task is a thread, whose steps loom orders.

use std::{
    cell::{Cell, RefCell},
    future::Future,
};

use loom::thread::JoinHandle;

/// What happens to a task that is spawned.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Runtime {
    Runs,
    IsShuttingDown,
}

thread_local! {
    // All threads of a model are coroutines of one thread, so this is one per execution.
    static TASKS: RefCell<Vec<JoinHandle<()>>> = const { RefCell::new(Vec::new()) };
    static RUNTIME: Cell<Runtime> = const { Cell::new(Runtime::Runs) };
}

/// Takes the place of `Handle::spawn`.
pub(crate) fn spawn(task: impl Future<Output = ()> + Send + 'static) {
    match RUNTIME.get() {
        Runtime::Runs => {
            let thread = loom::thread::spawn(move || loom::future::block_on(task));
            TASKS.with_borrow_mut(|tasks| tasks.push(thread));
        }
        Runtime::IsShuttingDown => drop(task),
    }
}

/// What is spawned from now on is dropped.
pub(crate) fn shut_down() {
    RUNTIME.set(Runtime::IsShuttingDown);
}

/// Waits for all tasks, and for those that they spawn.
pub(crate) fn join_all() {
    loop {
        let Some(task) = TASKS.with_borrow_mut(Vec::pop) else {
            break;
        };
        task.join().unwrap();
    }
}

/// What an execution left behind when it failed would only confuse the next one.
pub(crate) fn reset() {
    TASKS.take();
    RUNTIME.set(Runtime::Runs);
}

//! Runs the callbacks of one scope: in order, each isolated, within the limits.

use std::{
    future::{Future, poll_fn},
    sync::Arc,
    task::{Poll, ready},
};

use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::{
    sync::{Semaphore, oneshot},
    task::coop,
};

use self::turn::Turn;
use crate::{
    completion::Completion,
    isolate::isolate,
    observe::outcome::LostReason,
    scope::{
        Scope,
        current::{self, Current},
        options::Spawn,
        state::Start,
    },
};

pub(crate) mod before;
pub(crate) mod completer;
pub(crate) mod scoped;
mod turn;

/// Starts the runner of a scope on a task of its own, if the scope asks for one.
pub(crate) fn start(scope: &Arc<Scope>, start: Start) {
    if let Start::Runner(completion) = start {
        let runner = Runner::new(scope.clone(), completion, Unfinished::IsLost);
        spawn(scope, runner.run_to_end());
    }
}

/// Runs a task where the layer was told to, and waits for its output; the task goes on when nobody
/// waits any more.
pub(crate) async fn elsewhere<T: Send + 'static>(
    spawn: Arc<Spawn>,
    task: impl Future<Output = T> + Send + 'static,
) -> T {
    let (output, awaited) = oneshot::channel();
    let _ = isolate(|| {
        spawn(Box::pin(async move {
            let _ = output.send(task.await);
        }));
    });
    match awaited.await {
        Ok(output) => output,
        // Whoever runs tasks has dropped this one.
        Err(_) => std::future::pending().await,
    }
}

#[cfg(all(test, axum_defer_loom))]
fn spawn(_: &Arc<Scope>, task: impl Future<Output = ()> + Send + 'static) {
    crate::sync::modelled_runtime::spawn(task);
}

#[cfg(not(all(test, axum_defer_loom)))]
fn spawn(scope: &Arc<Scope>, task: impl Future<Output = ()> + Send + 'static) {
    if let Some(spawn) = &scope.options.spawn {
        // A task that is dropped unpolled, here too, reports the callbacks as lost.
        let _ = isolate(|| spawn(Box::pin(task)));
        return;
    }
    // A body may be dropped on any thread. Where there is no runtime, the one that `defer` was
    // called on will do.
    let runtime = tokio::runtime::Handle::try_current()
        .ok()
        .or_else(|| scope.runtime());
    match runtime {
        // A runtime that is shutting down drops the task unpolled, which reports the callbacks
        // as lost.
        Some(runtime) => drop(runtime.spawn(task)),
        None => drop(task),
    }
}

/// Runs the callbacks of a scope in the calling task, if the scope asks for a runner.
pub(crate) async fn run_here(scope: &Arc<Scope>, start: Start) {
    if let Start::Runner(completion) = start {
        Runner::new(scope.clone(), completion, Unfinished::MovesToATask)
            .run_to_end()
            .await;
    }
}

/// The one runner of a scope. What it has not run when it is dropped is not forgotten.
struct Runner {
    scope: Arc<Scope>,
    completion: Completion,
    unfinished: Option<Unfinished>,
}

/// What becomes of the callbacks that a runner which is dropped early leaves.
#[derive(Clone, Copy)]
pub(crate) enum Unfinished {
    /// The runner was a task, so the runtime is shutting down.
    IsLost,
    /// The runner was part of somebody's future, which they dropped.
    MovesToATask,
}

impl Runner {
    fn new(scope: Arc<Scope>, completion: Completion, unfinished: Unfinished) -> Self {
        Self {
            scope,
            completion,
            unfinished: Some(unfinished),
        }
    }

    /// An `async` block, which keeps what it captures once; an `async fn` would keep it twice.
    ///
    /// What few layers ask for is boxed, here and in [`Turn::run`]. Tokio moves a task several
    /// times until it runs, so each scope would pay for whatever is awaited in place.
    #[expect(clippy::manual_async_fn, reason = "it would be twice the size")]
    fn run_to_end(self) -> impl Future<Output = ()> + Send {
        async move {
            let Self {
                scope, completion, ..
            } = &self;
            let permit = match &scope.options.permits {
                Some(permits) if !is_nested_in(permits) => Box::pin(permits.acquire()).await.ok(),
                _ => None,
            };
            if scope.options.concurrent {
                Box::pin(side_by_side(scope, completion)).await;
            } else {
                while let Some(entry) = scope.next() {
                    let mut turn = Turn::new(scope, completion, entry);
                    turn.run().await;
                    // Callbacks that never wait must not keep the thread for themselves.
                    coop::consume_budget().await;
                }
            }
            drop(permit);
            self.finish();
        }
    }

    fn finish(mut self) {
        self.unfinished = None;
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        match self.unfinished {
            Some(Unfinished::IsLost) => self.scope.lose_all(LostReason::NoRuntime),
            Some(Unfinished::MovesToATask) => {
                start(&self.scope, Start::Runner(self.completion));
            }
            None => {}
        }
    }
}

/// Whether this is part of a callback which has a permit already: to wait for another one could
/// be to wait for itself.
fn is_nested_in(permits: &Arc<Semaphore>) -> bool {
    current::get().is_some_and(|Current { scope: outer, .. }| {
        let same = outer.options.permits.as_ref();
        same.is_some_and(|same| Arc::ptr_eq(same, permits)) && outer.completion().is_some()
    })
}

async fn side_by_side(scope: &Arc<Scope>, completion: &Completion) {
    let run = async |entry| {
        let mut turn = Turn::new(scope, completion, entry);
        turn.run().await;
    };
    let mut running = FuturesUnordered::new();
    while let Some(entry) = scope.next() {
        running.push(run(entry));
        poll_fn(|cx| {
            loop {
                // As above: this loop goes on for as long as callbacks end, or bring others.
                ready!(coop::poll_proceed(cx)).made_progress();
                match running.poll_next_unpin(cx) {
                    Poll::Ready(Some(())) => continue,
                    Poll::Ready(None) => return Poll::Ready(()),
                    Poll::Pending => match scope.next_beside_others(cx) {
                        Some(entry) => running.push(run(entry)),
                        None => return Poll::Pending,
                    },
                }
            }
        })
        .await;
    }
}

//! Runs the callbacks of one scope: in order, each isolated, within the limits.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::{
    runtime::Handle,
    sync::{Semaphore, oneshot},
    task::coop,
};

use self::turn::Turn;
use crate::{
    callback::entry::BoxEntry,
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
    if matches!(start, Start::Runner { .. }) {
        hand_over(scope.clone(), start);
    }
}

/// The same for who has no more use for the scope: the runner takes it over.
fn hand_over(scope: Arc<Scope>, start: Start) {
    let Start::Runner {
        completion,
        runtime,
        first,
    } = start
    else {
        return;
    };
    let place = Place::of(&scope, runtime);
    let runner = Runner::new(scope, first, completion, Unfinished::IsLost);
    if runner.has_limits() {
        place.spawn(runner.run_within_limits());
    } else {
        place.spawn(runner);
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

/// Where tasks of a scope run.
#[cfg_attr(all(test, axum_defer_loom), expect(dead_code))]
struct Place {
    spawn: Option<Arc<Spawn>>,
    runtime: Option<Handle>,
}

impl Place {
    /// A body may be dropped on any thread, also of another runtime, or of none: the one that
    /// `defer` was called on comes first.
    fn of(scope: &Scope, runtime: Option<Handle>) -> Self {
        Self {
            spawn: scope.options.spawn.clone(),
            runtime,
        }
    }

    #[cfg(all(test, axum_defer_loom))]
    fn spawn(self, task: impl Future<Output = ()> + Send + 'static) {
        crate::sync::modelled_runtime::spawn(task);
    }

    #[cfg(not(all(test, axum_defer_loom)))]
    fn spawn(self, task: impl Future<Output = ()> + Send + 'static) {
        if let Some(spawn) = self.spawn {
            // A task that is dropped unpolled, here too, reports the callbacks as lost.
            let _ = isolate(|| spawn(Box::pin(task)));
            return;
        }
        match self.runtime.or_else(|| Handle::try_current().ok()) {
            // A runtime that is shutting down drops the task unpolled, which reports the callbacks
            // as lost.
            Some(runtime) => drop(runtime.spawn(task)),
            None => drop(task),
        }
    }
}

/// Runs the callbacks of a scope in the calling task, if the scope asks for a runner.
pub(crate) async fn run_here(scope: &Arc<Scope>, start: Start) {
    if let Start::Runner {
        completion,
        runtime,
        first,
    } = start
    {
        scope.keep_runtime(runtime);
        let runner = Runner::new(scope.clone(), first, completion, Unfinished::MovesToATask);
        if runner.has_limits() {
            runner.run_within_limits().await;
        } else {
            runner.await;
        }
    }
}

/// The one runner of a scope. What it has not run when it is dropped is not forgotten.
///
/// A future of its own, as small as it can be: Tokio moves a task several times until it runs, so
/// each scope pays for its size. What few layers ask for is boxed.
struct Runner {
    turn: Turn,
    completion: Completion,
    unfinished: Option<Unfinished>,
}

/// Up to this size, the compiler moves it without a call of `memcpy`.
const _: () = assert!(size_of::<Runner>() <= 120);

/// What becomes of the callbacks that a runner which is dropped early leaves.
#[derive(Clone, Copy)]
pub(crate) enum Unfinished {
    /// The runner was a task, so the runtime is shutting down.
    IsLost,
    /// The runner was part of somebody's future, which they dropped.
    MovesToATask,
}

impl Runner {
    fn new(
        scope: Arc<Scope>,
        first: Option<BoxEntry>,
        completion: Completion,
        unfinished: Unfinished,
    ) -> Self {
        Self {
            turn: Turn::of(scope, first),
            completion,
            unfinished: Some(unfinished),
        }
    }

    fn has_limits(&self) -> bool {
        self.turn.scope().options.has_limits()
    }

    /// Waits until it may run, and runs side by side what may do so.
    fn run_within_limits(self) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async move {
            let scope = self.turn.scope().clone();
            let permit = match &scope.options.permits {
                Some(permits) if !is_nested_in(permits) => permits.acquire().await.ok(),
                _ => None,
            };
            if scope.options.concurrent {
                side_by_side(&scope, &self.completion).await;
                self.finish();
            } else {
                self.await;
            }
            drop(permit);
        })
    }

    fn finish(mut self) {
        self.unfinished = None;
    }
}

/// Runs one callback after the other.
impl Future for Runner {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        loop {
            ready!(this.turn.poll(cx, &this.completion));
            // Callbacks that never wait must not keep the thread for themselves.
            let proceeds = ready!(coop::poll_proceed(cx));
            if !this.turn.pass_on() {
                this.unfinished = None;
                return Poll::Ready(());
            }
            proceeds.made_progress();
        }
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        let Some(unfinished) = self.unfinished else {
            return;
        };
        // What is cut off is told of before what has not begun.
        self.turn.cut_off();
        match unfinished {
            Unfinished::IsLost => self.turn.scope_mut().lose_all(LostReason::NoRuntime),
            Unfinished::MovesToATask => {
                let scope = self.turn.scope();
                let again = Start::Runner {
                    completion: self.completion,
                    runtime: scope.runtime(),
                    first: None,
                };
                start(scope, again);
            }
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
        Turn::of(scope.clone(), Some(entry)).run(completion).await;
    };
    let mut running = FuturesUnordered::new();
    while let Some(entry) = scope.next_beside_pushes(None) {
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

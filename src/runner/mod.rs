//! The runner of a scope: one task that runs its callbacks in order, each isolated, within limits.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::coop,
};

use self::execution::Execution;
use crate::{
    completion::Completion,
    scope::{Scope, Then, current, spawn::spawn, state::Start},
};

pub(crate) mod before;
pub(crate) mod completion_guard;
mod execution;
pub(crate) mod scoped;

/// Spawns the runner of a scope, if a step has requested one.
#[inline]
pub(crate) fn start(scope: Arc<Scope>, start: Option<Start>) {
    if let Some(mut start) = start {
        let runtime = start.runtime.take();
        spawn_runner(Runner::new(scope, start, OnDrop::Lose), runtime);
    }
}

fn spawn_runner(runner: Runner, runtime: Option<tokio::runtime::Handle>) {
    let scope = runner.execution.scope();
    let spawner = scope.options.spawn.clone();
    spawn(spawner.as_ref(), runtime, runner);
}

/// Runs the callbacks of a scope in the calling task, if a step has requested a runner.
pub(crate) async fn run_here(scope: Arc<Scope>, start: Option<Start>) {
    if let Some(mut start) = start {
        scope.keep_runtime(start.runtime.take());
        Runner::new(scope, start, OnDrop::Respawn).await;
    }
}

/// The fate of the callbacks that have not started when a runner is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnDrop {
    /// The runner was a task, so its runtime has ended.
    Lose,
    /// The runner was part of a user's future.
    Respawn,
}

struct Runner {
    execution: Execution,
    completion: Completion,
    /// `None` when the runner has ended.
    on_drop: Option<OnDrop>,
    /// Boxed, because most scopes run one callback after the other, without limits.
    concurrent: Option<Box<ConcurrentCallbacks>>,
}

/// Callbacks that run concurrently with the current one, and the permit to run them.
struct ConcurrentCallbacks {
    permit: Permit,
    /// Callbacks that wait until their name is free.
    queued: Vec<Execution>,
    running: FuturesUnordered<Running>,
}

/// A permit of `max_concurrency`.
enum Permit {
    NotNeeded,
    Needed(Arc<Semaphore>),
    Acquiring(
        Arc<Semaphore>,
        Pin<Box<dyn Future<Output = Option<OwnedSemaphorePermit>> + Send>>,
    ),
    Held(Arc<Semaphore>, #[expect(dead_code)] OwnedSemaphorePermit),
}

/// A callback that runs while others do.
struct Running {
    execution: Execution,
    completion: Completion,
}

impl Runner {
    #[inline]
    fn new(scope: Arc<Scope>, start: Start, on_drop: OnDrop) -> Self {
        let options = &scope.options;
        let is_concurrent = options.concurrent || options.permits.is_some();
        let concurrent =
            is_concurrent.then(|| Box::new(ConcurrentCallbacks::new(options.permits.clone())));
        Self {
            execution: Execution::new(scope, start.first),
            completion: start.completion,
            on_drop: Some(on_drop),
            concurrent,
        }
    }

    /// Polls the concurrent callbacks. Ready if the current callback may run, or the next one may be
    /// taken.
    fn poll_concurrent(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(concurrent) = &mut self.concurrent else {
            return Poll::Ready(());
        };
        concurrent.poll_claims(cx, &self.completion);
        let waits_for_names = self.execution.is_idle() && concurrent.running.is_empty();
        if waits_for_names && !concurrent.queued.is_empty() {
            // A callback that waits for its name holds no permit.
            if !self.execution.scope().has_ready_or_wait(cx.waker().clone()) {
                concurrent.permit.release();
                return Poll::Pending;
            }
        }
        ready!(concurrent.permit.poll(cx));
        concurrent.poll_running(cx)
    }

    /// Lets other callbacks run while the current one waits. Returns `false` if they must not.
    fn run_concurrently(&mut self) -> bool {
        let is_queued = self.execution.is_queued();
        let scope = self.execution.scope();
        if !is_queued && !scope.options.concurrent {
            return false;
        }
        let idle = Execution::new(scope.clone(), None);
        let execution = std::mem::replace(&mut self.execution, idle);
        let concurrent = self
            .concurrent
            .get_or_insert_with(|| Box::new(ConcurrentCallbacks::new(None)));
        if is_queued {
            concurrent.queued.push(execution);
        } else {
            concurrent.run(execution, self.completion.clone());
        }
        true
    }

    /// Counts the end of the current callback and takes the next one. Returns `false` if there is
    /// none for now.
    #[inline]
    fn advance(&mut self, cx: &Context<'_>) -> bool {
        let waits = self
            .concurrent
            .as_ref()
            .is_some_and(|concurrent| !concurrent.is_empty());
        self.execution.advance(match waits {
            true => Then::TakeOrWait(cx.waker().clone()),
            false => Then::Take,
        })
    }
}

impl Future for Runner {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        loop {
            ready!(this.poll_concurrent(cx));
            if this.execution.poll(cx, &this.completion).is_pending() {
                if this.run_concurrently() {
                    continue;
                }
                return Poll::Pending;
            }
            // Callbacks that never wait must not keep the thread.
            let proceeds = ready!(coop::poll_proceed(cx));
            if !this.advance(cx) {
                if this
                    .concurrent
                    .as_ref()
                    .is_some_and(|concurrent| !concurrent.is_empty())
                {
                    return Poll::Pending;
                }
                this.on_drop = None;
                return Poll::Ready(());
            }
            proceeds.made_progress();
        }
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        let Some(on_drop) = self.on_drop else { return };
        let mut queued = Vec::new();
        if let Some(concurrent) = &mut self.concurrent {
            // Interrupted callbacks are reported before those that have not started.
            concurrent.running.clear();
            queued.append(&mut concurrent.queued);
        }
        let scope = self.execution.scope().clone();
        match on_drop {
            OnDrop::Lose => {
                self.execution.abandon();
                queued.clear();
                while self.execution.advance(Then::Take) {
                    self.execution.abandon();
                }
            }
            OnDrop::Respawn => {
                let mut execution = Execution::new(scope.clone(), None);
                if self.execution.is_waiting() {
                    std::mem::swap(&mut execution, &mut self.execution);
                }
                self.execution.abandon();
                let mut concurrent =
                    Box::new(ConcurrentCallbacks::new(scope.options.permits.clone()));
                concurrent.queued = queued;
                let runner = Self {
                    execution,
                    completion: self.completion.clone(),
                    on_drop: Some(OnDrop::Lose),
                    concurrent: Some(concurrent),
                };
                spawn_runner(runner, scope.runtime());
            }
        }
    }
}

impl ConcurrentCallbacks {
    fn new(permits: Option<Arc<Semaphore>>) -> Self {
        Self {
            permit: match permits {
                Some(permits) => Permit::Needed(permits),
                None => Permit::NotNeeded,
            },
            queued: Vec::new(),
            running: FuturesUnordered::new(),
        }
    }

    fn is_empty(&self) -> bool {
        self.queued.is_empty() && self.running.is_empty()
    }

    fn run(&self, execution: Execution, completion: Completion) {
        self.running.push(Running {
            execution,
            completion,
        });
    }

    /// Moves callbacks whose name is free to the running ones.
    fn poll_claims(&mut self, cx: &mut Context<'_>, completion: &Completion) {
        let mut index = 0;
        while let Some(execution) = self.queued.get_mut(index) {
            match execution.poll_claim(cx) {
                Poll::Pending => index += 1,
                Poll::Ready(()) => {
                    let execution = self.queued.remove(index);
                    self.run(execution, completion.clone());
                }
            }
        }
    }

    /// Polls the running callbacks until all of them wait.
    fn poll_running(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while !self.running.is_empty() {
            let proceeds = ready!(coop::poll_proceed(cx));
            match self.running.poll_next_unpin(cx) {
                Poll::Ready(_) => proceeds.made_progress(),
                Poll::Pending => break,
            }
        }
        Poll::Ready(())
    }
}

impl Permit {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            match self {
                Self::NotNeeded | Self::Held(..) => return Poll::Ready(()),
                Self::Needed(permits) if is_nested_in(permits) => *self = Self::NotNeeded,
                Self::Needed(permits) => {
                    let (permits, to_acquire) = (permits.clone(), permits.clone());
                    let acquiring = Box::pin(async move { to_acquire.acquire_owned().await.ok() });
                    *self = Self::Acquiring(permits, acquiring);
                }
                Self::Acquiring(permits, acquiring) => {
                    *self = match ready!(acquiring.as_mut().poll(cx)) {
                        Some(permit) => Self::Held(permits.clone(), permit),
                        // The semaphore is never closed.
                        None => Self::NotNeeded,
                    };
                }
            }
        }
    }

    fn release(&mut self) {
        if let Self::Held(permits, _) = self {
            *self = Self::Needed(permits.clone());
        }
    }
}

/// Returns `true` if the runner is part of a callback that has a permit already. Waiting for another
/// one could be waiting for itself.
fn is_nested_in(permits: &Arc<Semaphore>) -> bool {
    current::get().is_some_and(|outer| {
        let same = outer.scope.options.permits.as_ref();
        same.is_some_and(|same| Arc::ptr_eq(same, permits)) && outer.holder().is_some()
    })
}

impl Future for Running {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        ready!(this.execution.poll(cx, &this.completion));
        // Counts the end.
        this.execution.abandon();
        Poll::Ready(())
    }
}

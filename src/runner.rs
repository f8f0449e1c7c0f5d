//! Runs the callbacks of one scope: in order, each isolated, within the limits.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::{sync::Semaphore, task::coop, time::Instant};

use crate::{
    callback::{BoxEntry, BoxError, Failure},
    completion::Completion,
    current::{self, Current},
    drain::End,
    isolate::{drop_isolated, isolate},
    observe::{Finished, LostReason, Outcome},
    scope::{Scope, Start},
};

/// Starts the runner of a scope on a task of its own, if the scope asks for one.
pub(crate) fn start(scope: &Arc<Scope>, start: Start) {
    if let Start::Runner(completion) = start {
        let run = Run::new(scope.clone(), completion, Unfinished::IsLost);
        spawn(scope, run);
    }
}

#[cfg(all(test, axum_defer_loom))]
fn spawn(_: &Arc<Scope>, run: Run) {
    crate::model::spawn(run.run_to_end());
}

#[cfg(not(all(test, axum_defer_loom)))]
fn spawn(scope: &Arc<Scope>, run: Run) {
    // A body may be dropped on any thread. Where there is no runtime, the one that `defer` was
    // called on will do.
    let runtime = tokio::runtime::Handle::try_current()
        .ok()
        .or_else(|| scope.runtime());
    match runtime {
        // A runtime that is shutting down drops the task unpolled, which reports the callbacks
        // as lost.
        Some(runtime) => drop(runtime.spawn(run.run_to_end())),
        None => drop(run),
    }
}

/// Runs the callbacks of a scope in the calling task, if the scope asks for a runner.
pub(crate) async fn run_here(scope: &Arc<Scope>, start: Start) {
    if let Start::Runner(completion) = start {
        Run::new(scope.clone(), completion, Unfinished::MovesToATask)
            .run_to_end()
            .await;
    }
}

/// The one runner of a scope. What it has not run when it is dropped is not forgotten.
struct Run {
    scope: Arc<Scope>,
    completion: Completion,
    unfinished: Option<Unfinished>,
}

/// What becomes of the callbacks that a runner which is dropped early leaves.
enum Unfinished {
    /// The runner was a task, so the runtime is shutting down.
    IsLost,
    /// The runner was part of somebody's future, which they dropped.
    MovesToATask,
}

impl Run {
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
            let permit = match &scope.options.running {
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

impl Drop for Run {
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
        let same = outer.options.running.as_ref();
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

/// A callback whose turn it is. It leaves by exactly one of the exits; dropped before that, it
/// was lost.
struct Turn<'a> {
    scope: &'a Arc<Scope>,
    completion: &'a Completion,
    entry: Option<BoxEntry>,
    started: Option<Instant>,
}

impl<'a> Turn<'a> {
    fn new(scope: &'a Arc<Scope>, completion: &'a Completion, entry: BoxEntry) -> Self {
        scope.announce(&entry);
        Self {
            scope,
            completion,
            entry: Some(entry),
            started: None,
        }
    }

    /// From the verdict to the report.
    async fn run(&mut self) {
        if self.is_allowed() {
            self.start();
            match self.timeout() {
                None => (&mut *self).await,
                Some(limit) => Box::pin(self.run_for(limit)).await,
            }
        }
    }

    async fn run_for(&mut self, limit: Duration) {
        // Without a time driver this panics; the callback has failed then, visibly.
        let timeout = isolate(|| tokio::time::timeout(limit, &mut *self));
        match timeout {
            Ok(timeout) => {
                if timeout.await.is_err() {
                    self.finish(Outcome::TimedOut(limit));
                }
            }
            Err(message) => self.finish(Outcome::Panicked(&message)),
        }
    }

    fn is_allowed(&mut self) -> bool {
        let options = &self.scope.options;
        let Some(entry) = &self.entry else {
            return false;
        };
        match entry
            .header
            .rule
            .allows(self.completion, options.rule.as_ref())
        {
            Ok(true) => true,
            Ok(false) => {
                options.observers.skipped(&entry.header, self.completion);
                self.leave(End::Skipped);
                false
            }
            Err(message) => {
                self.start();
                self.finish(Outcome::Panicked(&message));
                false
            }
        }
    }

    fn timeout(&self) -> Option<Duration> {
        let own = self.entry.as_ref().and_then(|entry| entry.header.timeout);
        own.or(self.scope.options.timeout)
    }

    fn start(&mut self) {
        let Some(entry) = &self.entry else { return };
        let start = Instant::now();
        self.started = Some(start);
        self.scope.options.tracker.started();
        self.scope
            .options
            .observers
            .started(&entry.header, entry.header.waited_until(start));
    }

    fn finish(&mut self, outcome: Outcome<'_>) {
        let (Some(entry), Some(start)) = (&self.entry, self.started) else {
            return;
        };
        let is_ok = matches!(outcome, Outcome::Ok);
        let observers = &self.scope.options.observers;
        if !is_ok || observers.hear_success(&entry.header) {
            let finished = Finished {
                outcome,
                waited: entry.header.waited_until(start),
                took: start.elapsed(),
            };
            observers.finished(&entry.header, &finished);
        }
        self.leave(if is_ok { End::Ran } else { End::Failed });
    }

    fn lose(&mut self, reason: LostReason) {
        if let Some(entry) = &self.entry {
            self.scope.options.observers.lost(&entry.header, reason);
            self.leave(End::Lost);
        }
    }

    /// Nothing of the callback is left when the tracker is told: whoever waits until idle may
    /// rely on what it captured being gone.
    fn leave(&mut self, end: End) {
        let Some(entry) = self.entry.take() else {
            return;
        };
        self.scope.not_running(entry.header.id);
        {
            // What the callback captured may defer something when it is dropped, as its code may.
            let mut current = Some(Current::driven(self.scope.clone()));
            let _entered = current::enter(&mut current);
            drop_isolated(entry);
        }
        let tracker = &self.scope.options.tracker;
        if self.started.is_some() {
            tracker.ended(end);
        } else {
            tracker.dropped(end);
        }
    }
}

impl Future for Turn<'_> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        let Some(entry) = &mut this.entry else {
            return Poll::Ready(());
        };
        let completion = this.completion;
        let polled = {
            // Left before anybody is told of the end: who waits for it may rely on the span
            // being closed.
            #[cfg(feature = "tracing")]
            let _span = entry.header.span.clone().map(tracing::Span::entered);
            let mut current = Some(Current::driven(this.scope.clone()));
            let _entered = current::enter(&mut current);
            isolate(|| entry.as_mut().poll_run(cx, completion))
        };
        match polled {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(Ok(()))) => this.finish(Outcome::Ok),
            Ok(Poll::Ready(Err(Failure::Lost))) => this.lose(LostReason::NoRuntime),
            Ok(Poll::Ready(Err(Failure::Error(error)))) => {
                this.finish(Outcome::Error(error.as_ref()));
                drop_isolated::<BoxError>(error);
            }
            Err(message) => this.finish(Outcome::Panicked(&message)),
        }
        Poll::Ready(())
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.lose(if self.started.is_some() {
            LostReason::Interrupted
        } else {
            LostReason::NoRuntime
        });
    }
}

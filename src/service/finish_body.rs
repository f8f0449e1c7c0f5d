//! Bodies that are driven to their end, even if the client leaves.

use std::{
    fmt,
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use http_body::Body;
use tokio::task::coop;

use super::{
    body::{ResponseBody, Watch},
    run_to_completion::DrainGuard,
};
use crate::{
    catch_panic::catch_panic,
    clock::{self, Instant},
    scope::{Scope, spawn::spawn},
};

/// A body that can be moved to a task when its response is dropped.
pub(super) struct Movable<B> {
    pub(super) body: Pin<Box<B>>,
    /// A pointer, because a destructor can have no bounds of its own.
    finish: fn(Pin<Box<B>>, Watch, Arc<Scope>, Duration),
    limit: Duration,
}

impl<B> Movable<B>
where
    B: Body<Error: fmt::Display> + Send + 'static,
{
    pub(super) fn new(body: B, limit: Duration) -> Self {
        Self {
            body: Box::pin(body),
            finish: spawn_finish::<B>,
            limit,
        }
    }
}

impl<B> Movable<B> {
    /// Drives the body to its end on a task.
    pub(super) fn finish(self, watch: Watch, scope: Arc<Scope>) {
        (self.finish)(self.body, watch, scope, self.limit);
    }
}

fn spawn_finish<B>(body: Pin<Box<B>>, watch: Watch, scope: Arc<Scope>, limit: Duration)
where
    B: Body<Error: fmt::Display> + Send + 'static,
{
    let drain_guard = DrainGuard::new(scope.options.store.clone());
    let body = ResponseBody::abandoned(body, watch);
    let (spawner, runtime) = (scope.options.spawn.clone(), scope.runtime());
    let task = async move {
        // A task that was not spawned drops both in this order, too.
        let (body, drain_guard) = (body, drain_guard);
        discard(body, limit).await;
        // The scope is decided by now, so the drain sees no gap.
        drop(drain_guard);
    };
    spawn(spawner.as_ref(), runtime, task);
}

/// Polls a body until it ends, or until the time is up.
async fn discard<B>(body: ResponseBody<B>, limit: Duration)
where
    B: Body<Error: fmt::Display>,
{
    let mut body = pin!(body);
    // A limit beyond the range of the clock needs no timer.
    let mut timer = match Instant::now().checked_add(limit) {
        None => None,
        Some(_) => match clock::sleep(limit) {
            Ok(sleep) => Some(Box::pin(coop::unconstrained(sleep))),
            // Without a timer the body would have no limit.
            Err(_) => return,
        },
    };
    let is_over = |timer: &mut Option<Pin<Box<_>>>, cx: &mut Context<'_>| match timer {
        Some(timer) => Future::poll(Pin::as_mut(timer), cx).is_ready(),
        None => false,
    };
    poll_fn(|cx| {
        while !body.has_ended() && !is_over(&mut timer, cx) {
            // A body that never waits must not keep the thread.
            let proceeds = ready!(coop::poll_proceed(cx));
            match catch_panic(|| body.as_mut().poll_frame(cx)) {
                Ok(frame) => drop(ready!(frame)),
                // The body has recorded it.
                Err(_) => break,
            }
            proceeds.made_progress();
        }
        Poll::Ready(())
    })
    .await;
}

//! Bodies that are driven to their end, even if the client disconnects.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    task::{Context, Poll, ready},
    time::Duration,
};

use http_body::Body;
use tokio::task::coop;

use super::run_to_completion::DrainGuard;
use crate::{
    catch_panic::catch_panic,
    clock::{self, Instant},
    scope::{Scope, spawn::spawn},
};

/// Spawns a task that polls a body until it has ended, or until the time is up.
pub(super) fn spawn_discard<B>(body: B, has_ended: fn(&B) -> bool, scope: &Scope, limit: Duration)
where
    B: Body + Send + 'static,
{
    let drain_guard = DrainGuard::new(scope.options.store.clone());
    let (spawner, runtime) = (scope.options.spawn.clone(), scope.runtime());
    let task = async move {
        discard(body, has_ended, limit).await;
        // The scope is decided by now, so the drain sees no gap.
        drop(drain_guard);
    };
    spawn(spawner.as_ref(), runtime, task);
}

async fn discard<B: Body>(body: B, has_ended: fn(&B) -> bool, limit: Duration) {
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
        while !has_ended(&body) && !is_over(&mut timer, cx) {
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

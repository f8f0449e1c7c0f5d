//! How long a connection waits for the head of a request.
//!
//! hyper has such a time-out for HTTP/1, `header_read_timeout`. It enters a sleep for each request,
//! and reads and flushes once more after each response to begin with it: some 1,000 instructions a
//! request. This one asks the connection, which knows anyway what has come, and leaves its sleep
//! entered from request to request: when it rings too early, as there was a request since, it is set
//! anew. And it covers what hyper-util does before it knows which version of HTTP it is to speak.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    task::unconstrained,
    time::{Instant, Sleep, sleep_until},
};

use crate::sent::connection::{Awaits, Connection};

/// Ready when the head of a request has been waited for too long; to be polled by the task of the
/// connection, and no other, whenever that has come further.
pub(super) struct HeadTimeout {
    limit: Option<Duration>,
    connection: Arc<Connection>,
    /// What was awaited last, and until when that has time.
    awaited: Option<(Awaits, Instant)>,
    alarm: Option<Pin<Box<Sleep>>>,
}

impl HeadTimeout {
    pub(super) fn new(limit: Option<Duration>, connection: &Arc<Connection>) -> Self {
        Self {
            limit,
            connection: connection.clone(),
            awaited: None,
            alarm: None,
        }
    }
}

impl Future for HeadTimeout {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        let Some(limit) = this.limit else {
            return Poll::Pending;
        };
        let Some(awaits) = this.connection.awaits() else {
            this.awaited = None;
            return Poll::Pending;
        };
        loop {
            let deadline = match this.awaited {
                Some((same, deadline)) if same == awaits => deadline,
                _ => match Instant::now().checked_add(limit) {
                    Some(deadline) => this.awaited.insert((awaits, deadline)).1,
                    // Beyond all that the clock can tell there is no time-out.
                    None => return Poll::Pending,
                },
            };
            let alarm = match &mut this.alarm {
                // It wakes this task, as it was polled before.
                Some(alarm) if !alarm.is_elapsed() => return Poll::Pending,
                Some(alarm) => alarm,
                none => none.insert(Box::pin(sleep_until(deadline))),
            };
            if alarm.deadline() < deadline {
                alarm.as_mut().reset(deadline);
            }
            // A task whose budget is used up would hear that this is pending, and Tokio would not
            // know whom to wake.
            ready!(Pin::new(&mut unconstrained(alarm.as_mut())).poll(cx));
            if awaits != Awaits::App {
                return Poll::Ready(());
            }
            // Only to look again, after as long.
            this.awaited = None;
        }
    }
}

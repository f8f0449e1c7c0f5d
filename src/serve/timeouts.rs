//! The timeouts of a connection.
//!
//! One timer per connection reads the activity counters. hyper's own `header_read_timeout` registers a
//! timer for each request, and reads and flushes once more after each response, which costs about 1,000
//! instructions per request. This timer stays registered from request to request: if it fires early
//! because a request arrived in the meantime, it is reset.

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

use crate::sent::connection::{Connection, Expecting};

/// The time for which an HTTP/2 client may keep an idle connection open after GOAWAY.
const GOAWAY_GRACE_PERIOD: Duration = Duration::from_secs(5);

/// The timeouts of a server; `None` for no limit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timeouts {
    pub(super) header_read: Option<Duration>,
    pub(super) idle: Option<Duration>,
    pub(super) stall: Option<Duration>,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            // hyper's default.
            header_read: Some(Duration::from_secs(30)),
            // Longer than the keep-alive of common load balancers; Google's is 600 seconds.
            idle: Some(Duration::from_secs(620)),
            stall: Some(Duration::from_secs(60)),
        }
    }
}

/// The reason for which a connection timed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expired {
    HeaderRead,
    Idle,
    RequestBody,
    Stall,
}

/// A future that is ready when the connection has timed out.
///
/// The task of the connection must poll it after each poll of the connection.
pub(super) struct ConnectionTimer {
    timeouts: Timeouts,
    connection: Arc<Connection>,
    is_closing: bool,
    /// The event that the connection waits for, and its deadline.
    current: Option<(Expecting, Option<Instant>)>,
    /// HTTP/1: the requests and reads when the connection became idle. More reads without a request
    /// are the beginning of a head.
    idle_since: Option<(u64, u64)>,
    /// The time of the next check for stalled HTTP/2 responses.
    next_look: Option<Instant>,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl ConnectionTimer {
    pub(super) fn new(timeouts: Timeouts, connection: Arc<Connection>) -> Self {
        Self {
            timeouts,
            connection,
            is_closing: false,
            current: None,
            idle_since: None,
            next_look: None,
            sleep: None,
        }
    }

    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Limits the idle time to the grace period from now on.
    pub(super) fn begin_closing(&mut self) {
        self.is_closing = true;
        self.current = None;
    }

    fn expecting(&mut self) -> Option<Expecting> {
        let expecting = self.connection.expecting();
        let Some(Expecting::NextHttp1 { requests, reads }) = expecting else {
            self.idle_since = None;
            return expecting;
        };
        match self.idle_since {
            Some((before, reads_before)) if before == requests => {
                if reads == reads_before {
                    expecting
                } else {
                    Some(Expecting::Head(requests))
                }
            }
            _ => {
                self.idle_since = Some((requests, reads));
                expecting
            }
        }
    }

    fn limit(&self, expecting: Expecting) -> Option<Duration> {
        match expecting {
            Expecting::Head(_) | Expecting::NextHttp2 { .. } if self.is_closing => {
                (!self.connection.is_busy()).then_some(GOAWAY_GRACE_PERIOD)
            }
            Expecting::Head(_) => self.timeouts.header_read,
            Expecting::NextHttp1 { .. }
            | Expecting::NextHttp2 { .. }
            | Expecting::RequestBody(_)
            | Expecting::App => self.timeouts.idle,
            Expecting::Write(_) | Expecting::Window(_) => self.timeouts.stall,
        }
    }

    /// Returns the time at which the connection times out.
    fn deadline(&mut self) -> Option<Instant> {
        let Some(expecting) = self.expecting() else {
            self.current = None;
            return None;
        };
        match self.current {
            Some((same, deadline)) if same == expecting => deadline,
            _ => {
                let limit = self.limit(expecting);
                // There is no timeout beyond what the clock can represent.
                let deadline = limit.and_then(|limit| Instant::now().checked_add(limit));
                self.current = Some((expecting, deadline));
                deadline
            }
        }
    }

    /// Returns the time of the next check for stalled HTTP/2 responses.
    fn next_look(&mut self) -> Option<Instant> {
        let has_streams = self
            .connection
            .streams()
            .is_some_and(|streams| streams.has_some());
        match self.timeouts.stall {
            Some(stall) if has_streams => {
                if self.next_look.is_none() {
                    self.next_look = Instant::now().checked_add(stall / 8);
                }
            }
            _ => self.next_look = None,
        }
        self.next_look
    }
}

impl Future for ConnectionTimer {
    type Output = Expired;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Expired> {
        let this = self.get_mut();
        loop {
            let deadline = this.deadline();
            let Some(wake_at) = [deadline, this.next_look()].into_iter().flatten().min() else {
                return Poll::Pending;
            };
            let sleep = match &mut this.sleep {
                // This task is woken in time.
                Some(sleep) if !sleep.is_elapsed() && sleep.deadline() <= wake_at => {
                    return Poll::Pending;
                }
                Some(sleep) => {
                    sleep.as_mut().reset(wake_at);
                    sleep
                }
                none => none.insert(Box::pin(sleep_until(wake_at))),
            };
            // Without a budget, a sleep is pending and does not register the task.
            ready!(Pin::new(&mut unconstrained(sleep.as_mut())).poll(cx));
            let now = Instant::now();
            if let Some((expecting, Some(deadline))) = this.current {
                if deadline <= now {
                    match Expired::of(expecting) {
                        Some(expired) => return Poll::Ready(expired),
                        // Checks again later, because nothing wakes this task when the app continues.
                        None => this.current = None,
                    }
                }
            }
            if this.next_look.is_some_and(|next_look| next_look <= now) {
                this.next_look = None;
                if let (Some(streams), Some(stall)) =
                    (this.connection.streams(), this.timeouts.stall)
                {
                    streams.abort_stalled(stall);
                }
            }
        }
    }
}

impl Expired {
    /// Returns the reason if this event did not occur in time; `None` if the app must cause it.
    fn of(expecting: Expecting) -> Option<Self> {
        match expecting {
            Expecting::Head(_) => Some(Self::HeaderRead),
            Expecting::NextHttp1 { .. } | Expecting::NextHttp2 { .. } => Some(Self::Idle),
            Expecting::RequestBody(_) => Some(Self::RequestBody),
            Expecting::App => None,
            Expecting::Write(_) | Expecting::Window(_) => Some(Self::Stall),
        }
    }
}

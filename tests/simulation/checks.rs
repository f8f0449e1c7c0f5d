//! What must hold when a run is over.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    bounds::{HEADER_READ, IDLE, STALL, STALL_INTERVAL, TIMER},
    observer::Left,
    record::{Connection, Facts, Request},
};

/// What a shutdown took, and may take.
#[derive(Clone, Copy, Debug)]
pub struct Drain {
    pub took: Duration,
    pub limit: Duration,
    pub connection_limit: Duration,
}

impl Facts {
    /// Checks the report of a drain at the moment of its return.
    pub fn check_drain(&mut self, drain: Drain, left: Left, still_there: usize) {
        let Drain { took, limit, .. } = drain;
        self.require(took <= limit + TIMER, || {
            format!("the drain took {took:?} of {limit:?}")
        });
        self.require(left.awaited == 0 || took + TIMER >= limit, || {
            format!("the drain gave up after {took:?} of {limit:?}: {left:?}")
        });
        self.require(
            left.connections == 0 || took + TIMER >= drain.connection_limit,
            || format!("connections were aborted after {took:?}: {drain:?}"),
        );
        self.require(!left.is_complete || still_there == 0, || {
            format!("the drain is complete, but {still_there} callbacks are left")
        });
    }

    /// Checks that the shutdown has closed every connection that was not upgraded.
    pub fn check_connections(&mut self) {
        let open = self.connections.iter().filter(|connection| {
            connection.accepted.is_some() && connection.closed.is_none() && !connection.upgraded
        });
        let open = open.count();
        self.require(open == 0, || {
            format!("{open} connections are open after the shutdown")
        });
    }

    /// Checks every request, callback, and connection at the end.
    pub fn check_end(&mut self) {
        let ended: u64 = self
            .callbacks
            .values()
            .map(|callback| callback.ends.len() as u64)
            .sum();
        let registered = self.registered;
        self.require(registered == ended, || {
            format!("{registered} callbacks were registered, {ended} ended")
        });
        let alive = self.alive;
        self.require(alive == 0, || {
            format!("the code of {alive} callbacks is left")
        });

        let mut problems = Vec::new();
        for (number, request) in &self.requests {
            let connection = &self.connections[request.connection];
            for problem in late(request, connection) {
                problems.push(format!("request {number}: {problem}"));
            }
            if request.registered != request.ended {
                let Request {
                    registered, ended, ..
                } = request;
                problems.push(format!(
                    "request {number}: {ended} of {registered} callbacks ended"
                ));
            }
        }
        for (number, connection) in self.connections.iter().enumerate() {
            if let Some(problem) = self.outstays(connection) {
                problems.push(format!("connection {number}: {problem}"));
            }
        }
        problems
            .into_iter()
            .for_each(|problem| self.violation(problem));
    }

    /// Checks that the server closes a connection whose client has fallen silent.
    fn outstays(&self, connection: &Connection) -> Option<String> {
        let Connection {
            silent: Some(silent),
            accepted: Some(accepted),
            closed: Some(closed),
            has_bodies: false,
            flush_blocked: false,
            upgraded: false,
            ..
        } = connection
        else {
            return None;
        };
        let mut requests = connection
            .requests
            .iter()
            .map(|number| &self.requests[number]);
        if !requests.all(|request| request.end_flushed.is_some()) {
            return None;
        }
        let (since, bound) = match connection.last_end {
            Some(end) => (end, HEADER_READ.max(IDLE)),
            None => (*accepted, HEADER_READ),
        };
        let waited = closed.saturating_duration_since(since.max(*silent));
        (waited > bound + TIMER).then(|| format!("silent for {waited:?}"))
    }
}

/// Ways in which the end of a response was reported too late: all but the last are consequences of
/// an event, so not a moment passes between the two.
fn late(request: &Request, connection: &Connection) -> Vec<String> {
    let Some((decided, decision)) = request.decided else {
        return Vec::new();
    };
    let mut late = Vec::new();
    let mut check = |what: &str, event: Option<Instant>| {
        if let Some(event) = event.filter(|event| *event < decided) {
            let wait = decided - event;
            late.push(format!("{decision:?} was decided {wait:?} after {what}"));
        }
    };
    check("its last byte was flushed", request.end_flushed);
    let is_started = request.started.is_some_and(|started| started < decided);
    if !request.detached && is_started {
        check("its connection was closed", connection.closed);
        check("its reset and a flush", request.flushed_after_reset);
    }
    let limit = match request.is_http2 {
        true => STALL + STALL_INTERVAL,
        false => STALL,
    };
    // The app owns the transport of an upgraded connection.
    let is_served = !request.detached && !connection.upgraded;
    let stalled = request.progress.filter(|_| is_served);
    let stalled = stalled.map(|progress| decided.saturating_duration_since(progress));
    if let Some(stalled) = stalled.filter(|stalled| *stalled > limit + TIMER) {
        late.push(format!(
            "{decision:?} was decided after a stall of {stalled:?}"
        ));
    }
    late
}

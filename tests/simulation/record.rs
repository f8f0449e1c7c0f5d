//! What has happened in a run, as every part of it reports, and the rules that must hold at once.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::time::Instant;

use super::wire::Seen;

/// How a response ended, in words that do not depend on the names of the public API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    pub delivery: Delivery,
    pub flushed: bool,
    pub status: Option<u16>,
    pub bytes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    Complete,
    Aborted,
    BodyError,
    NoResponse,
    Other,
}

/// HTTP/2 frames by type, for traces.
const FRAMES: [&str; 10] = [
    "DATA",
    "HEADERS",
    "PRIORITY",
    "RST_STREAM",
    "SETTINGS",
    "PUSH_PROMISE",
    "PING",
    "GOAWAY",
    "WINDOW_UPDATE",
    "CONTINUATION",
];

/// All ends of callbacks and of responses.
pub const ENDS: [&str; 13] = [
    "ok",
    "error",
    "panicked",
    "timed out",
    "skipped",
    "cancelled",
    "replaced",
    "duplicate",
    "lost",
    "Complete",
    "Aborted",
    "BodyError",
    "NoResponse",
];

#[derive(Debug, Default)]
pub struct Request {
    pub connection: usize,
    pub is_http2: bool,
    /// When its handler was called.
    pub started: Option<Instant>,
    /// Its scope may be decided later than its connection ends.
    pub detached: bool,
    pub registered: u64,
    pub ended: u64,
    pub decided: Option<(Instant, Decision)>,
    /// The status that the handler has chosen, and the length of the body if it is known.
    pub status: Option<u16>,
    pub announced: Option<u64>,
    /// Bytes of the body that the transport has accepted, and flushed.
    pub body: u64,
    pub body_flushed: u64,
    /// When the whole body was there, or the transport has last accepted something since.
    pub progress: Option<Instant>,
    pub end_accepted: bool,
    pub end_flushed: Option<Instant>,
    pub until_close: bool,
    /// When the server has read the reset of its stream, and when the transport was flushed for the
    /// second time after that, the response, and its last byte.
    pub reset_read: Option<Instant>,
    pub flushes_after_reset: u32,
    pub flushed_after_reset: Option<Instant>,
}

#[derive(Debug, Default)]
pub struct Connection {
    pub requests: Vec<u64>,
    pub accepted: Option<Instant>,
    /// When the last response was flushed to its end.
    pub last_end: Option<Instant>,
    pub upgraded: bool,
    pub closed: Option<Instant>,
    /// When its client began to send nothing more.
    pub silent: Option<Instant>,
    /// It carries bodies of requests, for which other bounds hold.
    pub has_bodies: bool,
    /// A flush had to wait at some time.
    pub flush_blocked: bool,
}

#[derive(Debug)]
pub struct Callback {
    pub request: Option<u64>,
    pub ends: Vec<&'static str>,
    pub starts: u32,
}

#[derive(Debug, Default)]
pub struct Facts {
    pub requests: BTreeMap<u64, Request>,
    pub connections: Vec<Connection>,
    /// By the id that the library has given them.
    pub callbacks: BTreeMap<u64, Callback>,
    /// Callbacks that the handlers have registered.
    pub registered: u64,
    /// Callbacks whose code exists.
    pub alive: i64,
    /// Runs of exclusive callbacks, by name.
    pub exclusive: BTreeMap<&'static str, u32>,
    /// The runtime is gone, and its clock with it.
    pub over: bool,
    violations: Vec<String>,
    trace: u64,
    events: u64,
}

impl Facts {
    pub fn violation(&mut self, text: String) {
        if self.violations.len() < 20 {
            self.violations.push(text);
        }
    }

    pub fn require(&mut self, holds: bool, text: impl FnOnce() -> String) {
        if !holds {
            self.violation(text());
        }
    }

    pub fn violations(&mut self) -> Vec<String> {
        std::mem::take(&mut self.violations)
    }

    /// A fingerprint of all events and their times.
    pub fn trace(&self) -> u64 {
        self.trace
    }

    pub fn events(&self) -> u64 {
        self.events
    }

    /// How often each of [`ENDS`] was seen.
    pub fn ends(&self) -> [u64; ENDS.len()] {
        let mut counts = [0; ENDS.len()];
        let callbacks = self.callbacks.values().flat_map(|callback| &callback.ends);
        let decisions = self.requests.values().filter_map(|request| request.decided);
        let deliveries = decisions.map(|(_, decision)| match decision.delivery {
            Delivery::Complete => "Complete",
            Delivery::Aborted => "Aborted",
            Delivery::BodyError => "BodyError",
            Delivery::NoResponse => "NoResponse",
            Delivery::Other => "other",
        });
        for end in callbacks.copied().chain(deliveries) {
            for (known, count) in ENDS.iter().zip(&mut counts) {
                *count += u64::from(*known == end);
            }
        }
        counts
    }

    pub fn trace_event(&mut self, event: &str, subject: u64) {
        self.events += 1;
        let since = match self.over {
            true => 0,
            false => since_start().as_millis() as u64,
        };
        if std::env::var_os("SIMULATION_TRACE").is_some() {
            eprintln!("{since:>8} ms  {event} {subject}");
        }
        let bytes = event.bytes().map(u64::from);
        let values = bytes.chain([subject, since]);
        if self.over {
            // Tokio drops the tasks of a runtime in an order that depends on their ids, which are
            // unique in the process.
            self.trace = self.trace.wrapping_add(values.fold(0, mix));
        } else {
            self.trace = values.fold(self.trace, mix);
        }
    }

    /// Another response shares the connection of this one.
    fn shares_connection(&self, request: u64) -> bool {
        let Some(own) = self.requests.get(&request) else {
            return false;
        };
        let others = self.connections[own.connection].requests.iter();
        let now = Instant::now();
        others.filter(|other| **other != request).any(|other| {
            let flushed = self.requests[other].end_flushed;
            flushed.is_none_or(|flushed| flushed == now)
        })
    }

    /// `Flushed` only after the bytes were flushed, and `Aborted` only if they were not.
    fn check_decision(&mut self, number: u64, decision: Decision) {
        let shares = self.shares_connection(number);
        let Some(request) = self.requests.get(&number) else {
            return;
        };
        let (body, end) = (request.body_flushed, request.end_flushed);
        let is_complete = decision.delivery == Delivery::Complete;
        let mut problem = None;
        if is_complete && !decision.flushed {
            problem = Some("it is complete, but not flushed".to_owned());
        } else if is_complete && body != decision.bytes {
            problem = Some(format!("{body} bytes of its body were flushed"));
        } else if is_complete && end.is_none() && !request.until_close && !request.is_http2 {
            problem = Some("its end was not flushed".to_owned());
        } else if is_complete
            && end.is_none()
            && request.is_http2
            // Then the end of one response may be taken for that of another.
            && !shares
            // The client has all that was announced.
            && request.announced != Some(decision.bytes)
        {
            problem = Some("its END_STREAM was not flushed".to_owned());
        } else if decision.delivery == Delivery::Aborted
            && end.is_some()
            && request.reset_read.is_none()
        {
            problem = Some("all of it was flushed".to_owned());
        } else if decision.status != request.status && decision.status.is_some_and(|s| s != 503) {
            problem = Some(format!("its handler returned {:?}", request.status));
        }
        if let Some(problem) = problem {
            self.violation(format!("request {number}: {decision:?}, but {problem}"));
        }
    }
}

fn mix(trace: u64, value: u64) -> u64 {
    (trace ^ value)
        .wrapping_mul(0x0100_0000_01b3)
        .rotate_left(5)
}

thread_local! {
    static START: std::cell::Cell<Option<Instant>> = const { std::cell::Cell::new(None) };
}

fn since_start() -> std::time::Duration {
    START
        .get()
        .map_or(std::time::Duration::ZERO, |start| start.elapsed())
}

/// All parts of a run share it.
#[derive(Clone, Default)]
pub struct World(Arc<Mutex<Facts>>);

impl World {
    /// To be called on the runtime of the run.
    pub fn new() -> Self {
        START.set(Some(Instant::now()));
        Self::default()
    }

    pub fn facts(&self) -> MutexGuard<'_, Facts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn violation(&self, text: String) {
        self.facts().violation(text);
    }

    // What the network reports.

    pub(super) fn connect(&self) -> usize {
        let mut facts = self.facts();
        facts.connections.push(Connection::default());
        facts.connections.len() - 1
    }

    pub(super) fn accept(&self, connection: usize) {
        let mut facts = self.facts();
        facts.trace_event("accept", connection as u64);
        facts.connections[connection].accepted = Some(Instant::now());
    }

    pub(super) fn accepted(&self, connection: usize, seen: &[Seen]) {
        let mut facts = self.facts();
        for step in seen {
            match *step {
                Seen::Body { request, bytes } => facts.on_wire(request, |on| {
                    on.body += bytes;
                    // A frame that h2 has begun to write is finished, although its stream is reset.
                    on.flushed_after_reset = None;
                    on.flushes_after_reset = 0;
                }),
                Seen::End { request } => facts.on_wire(request, |on| on.end_accepted = true),
                Seen::UntilClose { request } => facts.on_wire(request, |on| on.until_close = true),
                Seen::Frame { kind, stream } => {
                    facts.trace_event(FRAMES[usize::from(kind) % FRAMES.len()], u64::from(stream));
                }
            }
        }
        facts.trace_event("accepted on", connection as u64);
        facts.progresses(connection);
    }

    pub(super) fn flushed(&self, connection: usize) {
        let mut facts = self.facts();
        let Facts {
            requests,
            connections,
            ..
        } = &mut *facts;
        let now = Instant::now();
        let mut ended = Vec::new();
        for number in &connections[connection].requests {
            let Some(request) = requests.get_mut(number) else {
                continue;
            };
            request.body_flushed = request.body;
            if request.end_accepted && request.end_flushed.is_none() {
                request.end_flushed = Some(now);
                ended.push(*number);
            }
            let is_dropped = request.reset_read.is_some() && request.status.is_some();
            if is_dropped && request.flushed_after_reset.is_none() {
                request.flushes_after_reset += 1;
                // The first one may belong to the round in which h2 wrote the last frame.
                if request.flushes_after_reset == 2 {
                    request.flushed_after_reset = Some(now);
                }
            }
        }
        facts.trace_event("flushed", connection as u64);
        facts.progresses(connection);
        for number in ended {
            facts.connections[connection].last_end = Some(now);
            facts.trace_event("response flushed", number);
        }
    }

    pub(super) fn reset_was_read(&self, request: u64) {
        let mut facts = self.facts();
        facts.trace_event("reset", request);
        if let Some(request) = facts.requests.get_mut(&request) {
            request.reset_read.get_or_insert_with(Instant::now);
        }
    }

    pub(super) fn closed(&self, connection: usize) {
        let mut facts = self.facts();
        facts.trace_event("closed", connection as u64);
        if !facts.over {
            facts.connections[connection].closed = Some(Instant::now());
        }
    }

    // What clients and handlers report.

    /// The shutdown begins, and with it the time of every stall.
    pub fn signal(&self) {
        let mut facts = self.facts();
        facts.trace_event("signal", 0);
        for connection in 0..facts.connections.len() {
            facts.progresses(connection);
        }
    }

    /// Opens the account of a request that a client is about to send.
    pub fn request(&self, connection: usize, is_http2: bool) -> u64 {
        let mut facts = self.facts();
        let number = facts.requests.len() as u64 + 1;
        let request = Request {
            connection,
            is_http2,
            ..Request::default()
        };
        facts.requests.insert(number, request);
        facts.connections[connection].requests.push(number);
        number
    }

    pub fn falls_silent(&self, connection: usize) {
        let now = Instant::now();
        self.facts().connections[connection].silent = Some(now);
    }

    pub fn sends_body(&self, connection: usize) {
        self.facts().connections[connection].has_bodies = true;
    }

    /// The connection belongs to the app from now on.
    pub fn upgraded(&self, request: u64) {
        let mut facts = self.facts();
        match facts.requests.get(&request) {
            Some(Request { connection, .. }) => {
                let connection = *connection;
                facts.connections[connection].upgraded = true;
            }
            // A client that sends raw bytes has the only connection.
            None => facts
                .connections
                .iter_mut()
                .for_each(|connection| connection.upgraded = true),
        }
    }

    pub(super) fn flush_is_blocked(&self, connection: usize) {
        self.facts().connections[connection].flush_blocked = true;
    }

    pub fn with_request<T>(&self, number: u64, f: impl FnOnce(&mut Request) -> T) -> Option<T> {
        self.facts().requests.get_mut(&number).map(f)
    }

    pub fn handler_started(&self, request: u64) {
        let mut facts = self.facts();
        facts.trace_event("handler", request);
        let connection = match facts.requests.get_mut(&request) {
            Some(found) => {
                let again = found.started.replace(Instant::now()).is_some();
                let connection = found.connection;
                facts.require(!again, || format!("request {request}: handled twice"));
                connection
            }
            None => return,
        };
        let closed = facts.connections[connection].closed;
        let closed = closed.is_some_and(|closed| closed < Instant::now());
        facts.require(!closed, || {
            format!("request {request}: handled after its connection was closed")
        });
    }

    /// A callback is about to be registered.
    pub fn registers(&self, request: u64) {
        let mut facts = self.facts();
        facts.registered += 1;
        facts.alive += 1;
        if let Some(request) = facts.requests.get_mut(&request) {
            request.registered += 1;
        }
    }

    pub fn callback_is_gone(&self) {
        self.facts().alive -= 1;
    }

    // What the library reports.

    pub fn completed(&self, request: Option<u64>, decision: Decision) {
        let mut facts = self.facts();
        let number = request.unwrap_or(0);
        facts.trace_event("decided", number);
        if !facts.over {
            facts.check_decision(number, decision);
        }
        let now = Instant::now();
        if let Some(request) = facts.requests.get_mut(&number) {
            let again = request.decided.replace((now, decision)).is_some();
            facts.require(!again, || format!("request {number}: decided twice"));
        }
    }

    pub fn callback_started(&self, id: u64, request: Option<u64>) {
        let mut facts = self.facts();
        facts.trace_event("started", request.unwrap_or(0));
        let callback = facts.callback(id, request);
        callback.starts += 1;
        let is_first = callback.starts == 1 && callback.ends.is_empty();
        facts.require(is_first, || {
            format!("request {request:?}: a callback started twice, or after its end")
        });
    }

    pub fn callback_ended(&self, id: u64, request: Option<u64>, how: &'static str) {
        let mut facts = self.facts();
        facts.trace_event(how, request.unwrap_or(0));
        let callback = facts.callback(id, request);
        callback.ends.push(how);
        if callback.ends.len() > 1 {
            let ends = callback.ends.clone();
            facts.violation(format!("request {request:?}: a callback ended as {ends:?}"));
        }
        if let Some(request) = request.and_then(|request| facts.requests.get_mut(&request)) {
            request.ended += 1;
        }
    }
}

impl Facts {
    /// The transport accepts bytes of a connection.
    fn progresses(&mut self, connection: usize) {
        let now = Instant::now();
        let Self {
            requests,
            connections,
            ..
        } = self;
        for number in &connections[connection].requests {
            if let Some(request) = requests.get_mut(number) {
                if request.decided.is_none() && request.progress.is_some() {
                    request.progress = Some(now);
                }
            }
        }
    }

    fn on_wire(&mut self, request: u64, change: impl FnOnce(&mut Request)) {
        if let Some(request) = self.requests.get_mut(&request) {
            change(request);
        }
    }

    fn callback(&mut self, id: u64, request: Option<u64>) -> &mut Callback {
        let callback = self.callbacks.entry(id).or_insert_with(|| Callback {
            request,
            ends: Vec::new(),
            starts: 0,
        });
        if callback.request != request {
            let first = callback.request;
            self.violations.push(format!(
                "a callback of request {first:?} ended in {request:?}"
            ));
        }
        callback
    }
}

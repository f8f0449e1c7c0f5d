//! One connection: its progress, and the responses that wait for its next flush.

use std::sync::Arc;
#[cfg(feature = "serve")]
use std::sync::Weak;

#[cfg(feature = "serve")]
use super::streams::Streams;
use super::{
    activity::{ConnectionActivity, Protocol},
    delivery::SharedDelivery,
    flush::{FlushTarget, WriteProgress},
};
#[cfg(feature = "serve")]
use crate::drain::{Server, ShutdownSignal};
use crate::{
    drain::DrainSource,
    sync::{
        AtomicBool, Mutex,
        Ordering::{Relaxed, SeqCst},
        lock,
    },
};

#[derive(Default)]
pub(crate) struct Connection {
    pub(super) progress: WriteProgress,
    pub(super) activity: ConnectionActivity,
    /// A response waits for a flush, so each flush must check the list.
    has_waiting: AtomicBool,
    waiting: Mutex<Waiting>,
    #[cfg(feature = "serve")]
    served: Option<Served>,
}

#[derive(Default)]
struct Waiting {
    closed: bool,
    responses: Vec<(Arc<SharedDelivery>, FlushTarget)>,
}

/// State of connections of `serve`.
#[cfg(feature = "serve")]
struct Served {
    server: Arc<Server>,
    streams: Streams,
    /// The first layer that a request has passed through.
    layer: std::sync::OnceLock<Arc<dyn DrainSource>>,
}

impl Connection {
    pub(super) fn new() -> Arc<Self> {
        Arc::default()
    }

    pub(super) fn begin_request(&self, is_multiplexed: bool) {
        if !is_multiplexed {
            self.activity.set_protocol(Protocol::Http1);
        }
        self.activity.begin_request();
    }

    /// Counts a frame that the server has to send. Returns `false` without timeouts.
    pub(super) fn begin_frame(&self) -> bool {
        #[cfg(feature = "serve")]
        if self.served.is_some() {
            self.activity.begin_frame();
            return true;
        }
        false
    }

    /// Adds a layer to the drain of the server, if there is one.
    pub(super) fn drain_with(&self, source: &Arc<impl DrainSource + 'static>) {
        #[cfg(feature = "serve")]
        if let Some(served) = &self.served {
            // Noted once per connection: the drain takes a lock.
            let is_noted = served
                .layer
                .get()
                .is_some_and(|known| std::ptr::addr_eq(Arc::as_ptr(known), Arc::as_ptr(source)));
            if !is_noted {
                served.server.drain_with(source);
                let _ = served.layer.set(source.clone());
            }
        }
        #[cfg(not(feature = "serve"))]
        let _ = source;
    }

    /// Records that the transport was flushed.
    pub(super) fn flushed(&self) {
        self.progress.add_flush();
        if self.has_waiting.load(SeqCst) {
            self.decide_flushed();
        }
    }

    /// Records that the transport is closed, and with it everything that was not flushed.
    pub(super) fn closed(&self) {
        let mut waiting = lock(&self.waiting);
        waiting.closed = true;
        let responses = std::mem::take(&mut waiting.responses);
        drop(waiting);
        for (response, _) in responses {
            (*response).as_ref().closed();
        }
    }

    /// Decides the response when the target is flushed.
    pub(super) fn await_flush(&self, response: Arc<SharedDelivery>, target: FlushTarget) {
        let mut waiting = lock(&self.waiting);
        self.has_waiting.store(true, SeqCst);
        // A flush that finds `has_waiting` unset has stored what it covers before, so it is seen here.
        let flushed = self.progress.flushed();
        let is_covered = flushed.includes(target);
        let is_missed = (*response).as_ref().is_missed_by_round(flushed.round);
        if !is_covered && !is_missed && !waiting.closed {
            waiting.responses.push((response, target));
            return;
        }
        if waiting.responses.is_empty() {
            self.has_waiting.store(false, Relaxed);
        }
        drop(waiting);
        if is_covered {
            (*response).as_ref().flushed();
        } else {
            (*response).as_ref().closed();
        }
    }

    /// Decides the responses that the last flush has completed, or would have.
    fn decide_flushed(&self) {
        let flushed = self.progress.flushed();
        // HTTP/1 has one response at a time, which needs no allocation.
        let mut first = None;
        let mut others = Vec::new();
        let mut waiting = lock(&self.waiting);
        let mut index = 0;
        while let Some((response, target)) = waiting.responses.get(index) {
            let is_covered = flushed.includes(*target);
            if is_covered || (**response).as_ref().is_missed_by_round(flushed.round) {
                let (response, _) = waiting.responses.remove(index);
                let decided = (response, is_covered);
                match first {
                    None => first = Some(decided),
                    Some(_) => others.push(decided),
                }
            } else {
                index += 1;
            }
        }
        if waiting.responses.is_empty() {
            self.has_waiting.store(false, Relaxed);
        }
        drop(waiting);
        let decide = |(response, is_covered): (Arc<SharedDelivery>, bool)| {
            if is_covered {
                (*response).as_ref().flushed();
            } else {
                (*response).as_ref().closed();
            }
        };
        if let Some(decided) = first {
            decide(decided);
        }
        if !others.is_empty() {
            others.into_iter().for_each(decide);
        }
    }
}

/// The event that a connection waits for, unless the app is busy. Each new value starts a new timeout.
#[cfg(feature = "serve")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expecting {
    /// The head of a request, after this many requests.
    Head(u64),
    /// HTTP/1: the next request, after this many requests and this many reads.
    NextHttp1 { requests: u64, reads: u64 },
    /// HTTP/2: the next request, after this many requests.
    NextHttp2 { requests: u64 },
    /// The body of a request whose response was sent, after this many reads.
    RequestBody(u64),
    /// The app, which does not read a request body whose response was sent.
    App,
    /// Room in the transport, which has accepted this many bytes.
    Write(u64),
    /// HTTP/2: a flow-control window, after this many bytes of bodies.
    Window(u64),
}

/// A request body that the app has not read to its end, nor dropped.
#[cfg(feature = "serve")]
pub(crate) struct RequestBodyGuard {
    connection: Arc<Connection>,
    is_waiting: bool,
}

#[cfg(feature = "serve")]
impl RequestBodyGuard {
    /// Records whether the app waits for more of the body.
    pub(crate) fn set_waiting(&mut self, is_waiting: bool) {
        if self.is_waiting != is_waiting {
            self.is_waiting = is_waiting;
            self.connection.activity.set_body_waiting(is_waiting);
        }
    }
}

#[cfg(feature = "serve")]
impl Drop for RequestBodyGuard {
    fn drop(&mut self) {
        self.set_waiting(false);
        self.connection.activity.end_request_body();
    }
}

#[cfg(feature = "serve")]
impl Connection {
    pub(super) fn served(server: Arc<Server>) -> Arc<Self> {
        Arc::new(Self {
            served: Some(Served {
                server,
                streams: Streams::default(),
                layer: std::sync::OnceLock::new(),
            }),
            ..Self::default()
        })
    }

    pub(super) fn shutdown_signal(&self) -> Option<&ShutdownSignal> {
        self.served.as_ref().map(|served| &served.server.shutdown)
    }

    pub(super) fn add_stream(&self, response: Weak<SharedDelivery>) {
        if let Some(served) = &self.served {
            served.streams.add(response);
        }
    }

    /// Returns the HTTP/2 responses that may stall.
    pub(crate) fn streams(&self) -> Option<&Streams> {
        self.served.as_ref().map(|served| &served.streams)
    }

    /// Returns `true` if a response is outstanding.
    pub(crate) fn is_busy(&self) -> bool {
        self.activity.is_busy()
    }

    #[cfg(feature = "http2")]
    pub(super) fn is_protocol_unknown(&self) -> bool {
        self.activity.protocol() == Protocol::Unknown
    }

    pub(crate) fn is_http2(&self) -> bool {
        self.activity.protocol() == Protocol::Http2
    }

    /// Counts a request body until the guard is dropped.
    pub(crate) fn request_body(self: &Arc<Self>) -> RequestBodyGuard {
        self.activity.begin_request_body();
        RequestBodyGuard {
            connection: self.clone(),
            is_waiting: false,
        }
    }

    /// Returns the event that the connection waits for; `None` if the app is busy.
    pub(crate) fn expecting(&self) -> Option<Expecting> {
        let activity = &self.activity;
        if activity.is_write_blocked() {
            return Some(Expecting::Write(self.progress.written()));
        }
        let (requests, reads) = (activity.requests(), activity.reads());
        let is_http2 = match activity.protocol() {
            Protocol::Unknown => return Some(Expecting::Head(0)),
            Protocol::Http1 if requests == 0 => return Some(Expecting::Head(0)),
            Protocol::Http1 => false,
            Protocol::Http2 if activity.head_is_open() => {
                return Some(Expecting::Head(activity.heads()));
            }
            Protocol::Http2 => true,
        };
        if is_http2 && activity.only_sends() {
            Some(Expecting::Window(activity.sent()))
        } else if activity.is_busy() {
            None
        } else if activity.is_body_awaited() {
            Some(Expecting::RequestBody(reads))
        } else if activity.has_request_body() {
            Some(Expecting::App)
        } else if is_http2 {
            Some(Expecting::NextHttp2 { requests })
        } else {
            Some(Expecting::NextHttp1 { requests, reads })
        }
    }
}

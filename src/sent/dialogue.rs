//! What passes over a connection, as far as its server must know it to end it.

#![cfg_attr(not(feature = "serve"), allow(dead_code, reason = "that server asks"))]

// The order of these steps decides nothing, so there is nothing for a model to find.
use std::sync::atomic::{
    AtomicBool, AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};

#[derive(Default)]
pub(super) struct Dialogue {
    /// A request has come over HTTP/1.
    is_http1: AtomicBool,
    /// Requests that have come.
    requests: AtomicU64,
    /// Of these, those whose responses the server has taken to their end.
    responses: AtomicU64,
    /// Over HTTP/1, bodies of requests that have not come to their end.
    request_bodies: AtomicU64,
    /// Of these, those of which the app has all that has come, and waits for more.
    awaited_bodies: AtomicU64,
    /// How often something was read.
    reads: AtomicU64,
    /// What `reads` was when somebody began to listen.
    listens_since: AtomicU64,
    /// The transport was to accept or flush something, and could not yet.
    is_held_up: AtomicBool,
}

impl Dialogue {
    pub(super) fn is_http1(&self) -> bool {
        self.is_http1.load(Relaxed)
    }

    pub(super) fn begun(&self, is_multiplexed: bool) {
        if !is_multiplexed {
            self.is_http1.store(true, Relaxed);
        }
        self.requests.fetch_add(1, Relaxed);
    }

    pub(super) fn over(&self) {
        self.responses.fetch_add(1, Release);
    }

    /// How many requests have come.
    pub(super) fn requests(&self) -> u64 {
        self.requests.load(Relaxed)
    }

    /// Whether some request is not over.
    pub(super) fn is_busy(&self) -> bool {
        self.responses.load(Acquire) != self.requests()
    }

    pub(super) fn request_body_comes(&self) {
        self.request_bodies.fetch_add(1, Relaxed);
    }

    pub(super) fn request_body_has_come(&self) {
        self.request_bodies.fetch_sub(1, Release);
    }

    pub(super) fn has_request_body(&self) -> bool {
        self.request_bodies.load(Acquire) > 0
    }

    pub(super) fn request_body_is_awaited(&self, is_awaited: bool) {
        if is_awaited {
            self.awaited_bodies.fetch_add(1, Relaxed);
        } else {
            self.awaited_bodies.fetch_sub(1, Relaxed);
        }
    }

    pub(super) fn awaits_request_body(&self) -> bool {
        self.awaited_bodies.load(Relaxed) > 0
    }

    /// By the task that owns the IO, and no other.
    pub(super) fn read(&self) {
        self.reads.store(self.reads() + 1, Relaxed);
    }

    pub(super) fn reads(&self) -> u64 {
        self.reads.load(Relaxed)
    }

    /// Whether the transport gets on; whoever reads slowly holds it up.
    pub(super) fn gets_on(&self, gets_on: bool) {
        if self.is_held_up() == gets_on {
            self.is_held_up.store(!gets_on, Relaxed);
        }
    }

    pub(super) fn is_held_up(&self) -> bool {
        self.is_held_up.load(Relaxed)
    }

    pub(super) fn listen_anew(&self) {
        self.listens_since.store(self.reads(), Relaxed);
    }

    pub(super) fn has_heard(&self) -> bool {
        self.reads() != self.listens_since.load(Relaxed)
    }
}

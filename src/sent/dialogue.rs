//! What passes over a connection, as far as its server must know it to end it.

#![cfg_attr(not(feature = "serve"), allow(dead_code, reason = "that server asks"))]

// The order of these steps decides nothing, so there is nothing for a model to find.
use std::sync::atomic::{
    AtomicBool, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release},
};

#[derive(Default)]
pub(super) struct Dialogue {
    /// A request has come over HTTP/1.
    is_http1: AtomicBool,
    /// Requests whose responses the server has not taken to their end.
    under_way: AtomicUsize,
    /// Something was read since somebody began to listen.
    has_heard: AtomicBool,
}

impl Dialogue {
    pub(super) fn is_http1(&self) -> bool {
        self.is_http1.load(Relaxed)
    }

    pub(super) fn begun(&self, is_multiplexed: bool) {
        if !is_multiplexed {
            self.is_http1.store(true, Relaxed);
        }
        self.under_way.fetch_add(1, Relaxed);
    }

    pub(super) fn over(&self) {
        self.under_way.fetch_sub(1, Release);
    }

    pub(super) fn is_busy(&self) -> bool {
        self.under_way.load(Acquire) > 0
    }

    pub(super) fn read(&self) {
        if !self.has_heard.load(Relaxed) {
            self.has_heard.store(true, Relaxed);
        }
    }

    pub(super) fn listen_anew(&self) {
        self.has_heard.store(false, Relaxed);
    }

    pub(super) fn has_heard(&self) -> bool {
        self.has_heard.load(Relaxed)
    }
}

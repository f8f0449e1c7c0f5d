//! Per-connection activity counters, used for shutdown and timeouts.

#![cfg_attr(
    not(feature = "serve"),
    allow(dead_code, reason = "only `serve` has timeouts")
)]

// Their order decides nothing, so the loom models need not explore them.
use std::sync::atomic::{
    AtomicBool, AtomicU8, AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};

/// The protocol of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    /// Too few bytes have arrived.
    Unknown,
    Http1,
    Http2,
}

#[derive(Default)]
pub(super) struct ConnectionActivity {
    /// The discriminant of a [`Protocol`].
    protocol: AtomicU8,
    /// HTTP/2: header blocks that have begun after the first SETTINGS frame.
    heads: AtomicU64,
    /// HTTP/2: a header block, or the start of the connection, is incomplete.
    head_is_open: AtomicBool,
    /// Requests that have arrived.
    requests: AtomicU64,
    /// Requests whose response the server has taken to its end, or dropped.
    responses: AtomicU64,
    /// HTTP/2: frames of response bodies that the server has not written or dropped.
    frames: AtomicU64,
    /// HTTP/2: response bodies whose last poll returned a frame.
    sending: AtomicU64,
    /// HTTP/2: bytes of these frames that the server has written.
    sent: AtomicU64,
    /// Request bodies that the app has not read to their end, or dropped.
    request_bodies: AtomicU64,
    /// Request bodies of these for which the app waits.
    awaited_bodies: AtomicU64,
    /// Reads that returned data.
    reads: AtomicU64,
    /// The last write or flush was pending.
    write_is_blocked: AtomicBool,
}

impl ConnectionActivity {
    pub(super) fn protocol(&self) -> Protocol {
        match self.protocol.load(Relaxed) {
            0 => Protocol::Unknown,
            1 => Protocol::Http1,
            _ => Protocol::Http2,
        }
    }

    pub(super) fn set_protocol(&self, protocol: Protocol) {
        self.protocol.store(protocol as u8, Relaxed);
    }

    /// Records whether an HTTP/2 header block is incomplete.
    pub(super) fn set_head_open(&self, is_open: bool) {
        self.head_is_open.store(is_open, Relaxed);
    }

    /// Counts an HTTP/2 header block that begins.
    pub(super) fn begin_head(&self) {
        self.heads.fetch_add(1, Relaxed);
    }

    pub(super) fn head_is_open(&self) -> bool {
        self.head_is_open.load(Relaxed)
    }

    pub(super) fn heads(&self) -> u64 {
        self.heads.load(Relaxed)
    }

    pub(super) fn begin_request(&self) {
        self.requests.fetch_add(1, Relaxed);
    }

    pub(super) fn end_response(&self) {
        self.responses.fetch_add(1, Release);
    }

    pub(super) fn requests(&self) -> u64 {
        self.requests.load(Relaxed)
    }

    /// Returns `true` if a response is outstanding.
    pub(super) fn is_busy(&self) -> bool {
        self.responses.load(Acquire) != self.requests()
    }

    /// Counts an HTTP/2 response body that has something to send, or no longer has.
    pub(super) fn set_sending(&self, is_sending: bool) {
        if is_sending {
            self.sending.fetch_add(1, Relaxed);
        } else {
            self.sending.fetch_sub(1, Relaxed);
        }
    }

    /// Returns `true` if every outstanding HTTP/2 response has something to send.
    pub(super) fn only_sends(&self) -> bool {
        let others = self.responses.load(Acquire) + self.sending.load(Relaxed);
        others == self.requests() && self.has_frames()
    }

    pub(super) fn begin_frame(&self) {
        self.frames.fetch_add(1, Relaxed);
    }

    pub(super) fn end_frame(&self) {
        self.frames.fetch_sub(1, Release);
    }

    fn has_frames(&self) -> bool {
        self.frames.load(Acquire) > 0
    }

    /// Counts bytes of frames that were sent. Called only by the task that owns the IO.
    pub(super) fn add_sent(&self, bytes: u64) {
        self.sent.store(self.sent() + bytes, Relaxed);
    }

    pub(super) fn sent(&self) -> u64 {
        self.sent.load(Relaxed)
    }

    pub(super) fn begin_request_body(&self) {
        self.request_bodies.fetch_add(1, Relaxed);
    }

    pub(super) fn end_request_body(&self) {
        self.request_bodies.fetch_sub(1, Release);
    }

    pub(super) fn has_request_body(&self) -> bool {
        self.request_bodies.load(Acquire) > 0
    }

    pub(super) fn set_body_waiting(&self, is_waiting: bool) {
        if is_waiting {
            self.awaited_bodies.fetch_add(1, Relaxed);
        } else {
            self.awaited_bodies.fetch_sub(1, Relaxed);
        }
    }

    pub(super) fn is_body_awaited(&self) -> bool {
        self.awaited_bodies.load(Relaxed) > 0
    }

    /// Counts a read. Called only by the task that owns the IO.
    pub(super) fn add_read(&self) {
        self.reads.store(self.reads() + 1, Relaxed);
    }

    pub(super) fn reads(&self) -> u64 {
        self.reads.load(Relaxed)
    }

    /// Records whether the last write or flush was pending.
    pub(super) fn set_write_blocked(&self, is_blocked: bool) {
        if self.is_write_blocked() != is_blocked {
            self.write_is_blocked.store(is_blocked, Relaxed);
        }
    }

    pub(super) fn is_write_blocked(&self) -> bool {
        self.write_is_blocked.load(Relaxed)
    }
}

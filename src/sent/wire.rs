//! How far one connection has come: what was written to it, and what of that was flushed.

use crate::sync::{
    AtomicU64,
    Ordering::{Acquire, Relaxed, Release, SeqCst},
};

/// Written by the task that owns the IO, and by no other: there is no need to add atomically.
#[derive(Default)]
pub(super) struct Wire {
    written: AtomicU64,
    /// What `written` was at the last flush.
    flushed: AtomicU64,
    /// How often the transport was flushed.
    flushes: AtomicU64,
    /// How often the server has begun to look for something to read: once at least each time
    /// before h2 looks for something to write.
    rounds: AtomicU64,
    /// What `rounds` was at the last flush.
    flushed_in: AtomicU64,
}

/// What a flush has to have covered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Awaited {
    /// The flush of this number, or a later one.
    pub(super) number: u64,
    /// If more than so many bytes are covered by it.
    pub(super) beyond: Option<u64>,
}

impl Wire {
    pub(super) fn written(&self) -> u64 {
        self.written.load(Acquire)
    }

    /// The transport has accepted some bytes.
    pub(super) fn wrote(&self, bytes: usize) {
        self.written.store(self.written() + bytes as u64, Release);
    }

    /// The server is about to read.
    pub(super) fn reading(&self) {
        self.rounds.store(self.rounds() + 1, Relaxed);
    }

    /// Who has put something in h2's queue and asks then knows that a later round has found it:
    /// the lock of that queue is between the two.
    pub(super) fn rounds(&self) -> u64 {
        self.rounds.load(Relaxed)
    }

    /// The number of the flush that covers what is consumed now, by the task that owns the IO.
    pub(super) fn next_flush(&self) -> u64 {
        self.flushes.load(SeqCst) + 1
    }

    /// The transport was flushed of all that was written to it.
    pub(super) fn flushed(&self) {
        self.flushed_in.store(self.rounds(), Relaxed);
        self.flushed.store(self.written(), Relaxed);
        // Who sees this one sees those above; and it comes before the look at who waits.
        self.flushes.store(self.next_flush(), SeqCst);
    }

    /// What the flushes up to now have covered.
    pub(super) fn covered(&self) -> Covered {
        // What a flush stores last is loaded first.
        let flushes = self.flushes.load(SeqCst);
        Covered {
            flushes,
            bytes: self.flushed.load(Relaxed),
            round: self.flushed_in.load(Relaxed),
        }
    }
}

/// What flushes have covered.
#[derive(Clone, Copy)]
pub(super) struct Covered {
    flushes: u64,
    bytes: u64,
    /// The round of the last flush.
    pub(super) round: u64,
}

impl Covered {
    pub(super) fn includes(self, awaited: Awaited) -> bool {
        let Awaited { number, beyond } = awaited;
        self.flushes >= number && beyond.is_none_or(|written| self.bytes > written)
    }
}

//! How far one connection has come: what was written to it, and what of that was flushed.

use crate::sync::{
    AtomicU64,
    Ordering::{Relaxed, SeqCst},
};

/// Written by the task that owns the IO, and by no other.
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
        self.written.load(SeqCst)
    }

    /// The transport has accepted some bytes.
    pub(super) fn wrote(&self, bytes: usize) {
        self.written.fetch_add(bytes as u64, SeqCst);
    }

    /// The server is about to read.
    ///
    /// Only the task that owns the IO calls this, so that there is no need to add atomically.
    pub(super) fn reading(&self) {
        self.rounds.store(self.rounds() + 1, Relaxed);
    }

    /// Who has put something in h2's queue and asks then knows that a later round has found it:
    /// the lock of that queue is between the two.
    pub(super) fn rounds(&self) -> u64 {
        self.rounds.load(Relaxed)
    }

    /// The round of the last flush.
    pub(super) fn flushed_in(&self) -> u64 {
        self.flushed_in.load(SeqCst)
    }

    /// The number of the flush that covers what is consumed now, by the task that owns the IO.
    pub(super) fn next_flush(&self) -> u64 {
        self.flushes.load(SeqCst) + 1
    }

    /// The transport was flushed of all that was written to it.
    pub(super) fn flushed(&self) {
        self.flushed_in.store(self.rounds(), SeqCst);
        self.flushed.store(self.written(), SeqCst);
        self.flushes.store(self.next_flush(), SeqCst);
    }

    pub(super) fn has_covered(&self, awaited: Awaited) -> bool {
        let Awaited { number, beyond } = awaited;
        self.flushes.load(SeqCst) >= number
            && beyond.is_none_or(|written| self.flushed.load(SeqCst) > written)
    }
}

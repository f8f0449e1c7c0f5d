//! The progress of writes and flushes on one connection.

use crate::sync::{
    AtomicU64,
    Ordering::{Acquire, Relaxed, Release, SeqCst},
};

/// Counters of writes and flushes. Only the task that owns the IO writes them, so additions need
/// not be atomic.
#[derive(Default)]
pub(super) struct WriteProgress {
    written: AtomicU64,
    /// The value of `written` at the last flush.
    flushed: AtomicU64,
    /// Number of completed flushes.
    flushes: AtomicU64,
    /// Number of reads that have begun and flushes that have completed.
    ///
    /// h2 looks for queued frames after each read that finds nothing more, and between two flushes if
    /// it writes nothing in between.
    rounds: AtomicU64,
    /// The value of `rounds` at the last flush, before that flush was counted.
    flushed_round: AtomicU64,
}

/// The flush that completes a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FlushTarget {
    /// The number of the first flush that may complete it.
    pub(super) number: u64,
    /// If set, the flush must cover more than this many bytes of the connection.
    pub(super) past_offset: Option<u64>,
}

impl WriteProgress {
    /// Returns the number of bytes that the transport has accepted.
    pub(super) fn written(&self) -> u64 {
        self.written.load(Acquire)
    }

    /// Counts bytes that the transport has accepted.
    pub(super) fn add_written(&self, bytes: usize) {
        self.written.store(self.written() + bytes as u64, Release);
    }

    /// Counts a read that begins.
    pub(super) fn begin_read(&self) {
        self.rounds.store(self.rounds() + 1, Relaxed);
    }

    /// Returns the current round.
    ///
    /// After a frame was put in h2's queue, every flush of a later round comes after h2 has looked at
    /// the queue, because the lock of the queue orders the two.
    pub(super) fn rounds(&self) -> u64 {
        self.rounds.load(Relaxed)
    }

    /// Returns the number of the flush that covers the current writes of the task that owns the IO.
    pub(super) fn next_flush(&self) -> u64 {
        self.flushes.load(SeqCst) + 1
    }

    /// Counts a completed flush.
    pub(super) fn add_flush(&self) {
        let round = self.rounds();
        self.flushed_round.store(round, Relaxed);
        self.flushed.store(self.written(), Relaxed);
        // Published last: a reader that sees this flush also sees the values above.
        self.flushes.store(self.next_flush(), SeqCst);
        self.rounds.store(round + 1, Relaxed);
    }

    /// Returns the progress of the flushes so far.
    pub(super) fn flushed(&self) -> Flushed {
        // Loaded first, because a flush stores it last.
        let flushes = self.flushes.load(SeqCst);
        Flushed {
            flushes,
            bytes: self.flushed.load(Relaxed),
            round: self.flushed_round.load(Relaxed),
        }
    }
}

/// A snapshot of the flushes of a connection.
#[derive(Clone, Copy)]
pub(super) struct Flushed {
    flushes: u64,
    bytes: u64,
    /// The round of the last flush.
    pub(super) round: u64,
}

impl Flushed {
    /// Returns `true` if the target is reached.
    pub(super) fn includes(self, target: FlushTarget) -> bool {
        self.flushes >= target.number && target.past_offset.is_none_or(|offset| self.bytes > offset)
    }
}

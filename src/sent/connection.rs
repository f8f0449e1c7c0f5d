//! What is known of one connection: how much was written, how much was flushed, and who waits.

use std::sync::Arc;

use super::transmission::{Flush, Transmission};
use crate::{
    drain::{Tracker, Trackers},
    sync::{
        AtomicBool, AtomicU64, Mutex,
        Ordering::{Relaxed, SeqCst},
        lock,
    },
};

#[derive(Default)]
pub(crate) struct Connection {
    written: AtomicU64,
    /// What `written` was at the last flush.
    flushed: AtomicU64,
    flushes: AtomicU64,
    /// How often the server has begun to look for something to read: once at least each time
    /// before h2 looks for something to write.
    rounds: AtomicU64,
    /// What `rounds` was at the last flush.
    flushed_in: AtomicU64,
    /// Somebody waits for a flush, so a flush has to look.
    has_waiting: AtomicBool,
    waiting: Mutex<Waiting>,
    /// What the server drains when it shuts down.
    drained: Option<Arc<Trackers>>,
}

#[derive(Default)]
struct Waiting {
    closed: bool,
    transmissions: Vec<(Arc<Transmission>, Flush)>,
}

impl Connection {
    pub(crate) fn new(drained: Option<Arc<Trackers>>) -> Arc<Self> {
        Arc::new(Self {
            drained,
            ..Self::default()
        })
    }

    pub(crate) fn written(&self) -> u64 {
        self.written.load(SeqCst)
    }

    pub(crate) fn drains(&self, tracker: &Arc<Tracker>) {
        if let Some(drained) = &self.drained {
            drained.add(tracker);
        }
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

    /// How often the transport was flushed.
    pub(super) fn flushes(&self) -> u64 {
        self.flushes.load(SeqCst)
    }

    /// The transport has accepted some bytes.
    pub(super) fn wrote(&self, bytes: usize) {
        self.written.fetch_add(bytes as u64, SeqCst);
    }

    /// The transport was flushed of all that was written to it.
    pub(super) fn flushed(&self) {
        self.flushed_in.store(self.rounds(), SeqCst);
        self.flushed.store(self.written(), SeqCst);
        self.flushes.fetch_add(1, SeqCst);
        if self.has_waiting.load(SeqCst) {
            self.settle(true);
        }
    }

    /// The transport is gone, and all that was not flushed with it.
    pub(super) fn closed(&self) {
        let mut waiting = lock(&self.waiting);
        waiting.closed = true;
        let transmissions = std::mem::take(&mut waiting.transmissions);
        drop(waiting);
        for (transmission, _) in transmissions {
            transmission.closed();
        }
    }

    pub(super) fn await_flush(&self, transmission: Arc<Transmission>, flush: Flush) {
        let mut waiting = lock(&self.waiting);
        if waiting.closed {
            drop(waiting);
            transmission.closed();
            return;
        }
        waiting.transmissions.push((transmission, flush));
        self.has_waiting.store(true, SeqCst);
        drop(waiting);
        // The flush may have come between the look at the counters and the push. One that finds
        // `has_waiting` unset has stored what it covers before, so it is seen here.
        if flush != Flush::Next {
            self.settle(false);
        }
    }

    fn settle(&self, is_flush: bool) {
        let flushed = self.flushed.load(SeqCst);
        let flushes = self.flushes();
        let flushed_in = self.flushed_in.load(SeqCst);
        let mut over = Vec::new();
        let mut waiting = lock(&self.waiting);
        waiting.transmissions.retain(|(transmission, flush)| {
            let is_covered = match *flush {
                Flush::Next => is_flush,
                Flush::Beyond(written) => flushed > written && transmission.is_covered_by(flushes),
            };
            let is_over = is_covered || transmission.was_dropped_by(flushed_in);
            if is_over {
                over.push((transmission.clone(), is_covered));
            }
            !is_over
        });
        self.has_waiting
            .store(!waiting.transmissions.is_empty(), SeqCst);
        drop(waiting);
        for (transmission, is_covered) in over {
            if is_covered {
                transmission.flushed();
            } else {
                transmission.closed();
            }
        }
    }
}

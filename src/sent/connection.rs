//! What is known of one connection: how much was written, how much was flushed, and who waits.

use std::sync::Arc;

use super::transmission::{Flush, Transmission};
use crate::{
    drain::{Tracker, Trackers},
    sync::{AtomicBool, AtomicU64, Mutex, Ordering::SeqCst, lock},
};

#[derive(Default)]
pub(crate) struct Connection {
    written: AtomicU64,
    /// What `written` was at the last flush.
    flushed: AtomicU64,
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

    /// The transport has accepted some bytes.
    pub(super) fn wrote(&self, bytes: usize) {
        self.written.fetch_add(bytes as u64, SeqCst);
    }

    /// The transport was flushed of all that was written to it.
    pub(super) fn flushed(&self) {
        self.flushed.store(self.written(), SeqCst);
        if self.has_waiting.load(SeqCst) {
            self.settle(|flush, flushed| match flush {
                Flush::Next => true,
                Flush::Beyond(written) => flushed > written,
            });
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
        if let Flush::Beyond(written) = flush {
            // The flush may have come between the look at the counter and the push. One that
            // finds `has_waiting` unset has stored `flushed` before, so it is seen here.
            if self.flushed.load(SeqCst) > written {
                self.settle(|flush, flushed| match flush {
                    Flush::Next => false,
                    Flush::Beyond(written) => flushed > written,
                });
            }
        }
    }

    fn settle(&self, covered: impl Fn(Flush, u64) -> bool) {
        let flushed = self.flushed.load(SeqCst);
        let mut waiting = lock(&self.waiting);
        let (over, rest) = std::mem::take(&mut waiting.transmissions)
            .into_iter()
            .partition(|(_, flush)| covered(*flush, flushed));
        waiting.transmissions = rest;
        self.has_waiting
            .store(!waiting.transmissions.is_empty(), SeqCst);
        drop(waiting);
        let over: Vec<(Arc<Transmission>, Flush)> = over;
        for (transmission, _) in over {
            transmission.flushed();
        }
    }
}

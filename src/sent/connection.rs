//! One connection: how far it has come, and which responses wait for it to come further.

use std::sync::Arc;

use super::{
    departure::Departure,
    wire::{Awaited, Wire},
};
use crate::{
    drain::{draining::Draining, tracker::Tracker},
    sync::{AtomicBool, Mutex, Ordering::SeqCst, lock},
};

#[derive(Default)]
pub(super) struct Connection {
    pub(super) wire: Wire,
    /// Somebody waits for a flush, so a flush has to look.
    has_waiting: AtomicBool,
    waiting: Mutex<Waiting>,
    /// What the server drains when it shuts down.
    drained: Option<Arc<Draining>>,
}

#[derive(Default)]
struct Waiting {
    closed: bool,
    departures: Vec<(Arc<Departure>, Awaited)>,
}

impl Connection {
    pub(super) fn new(drained: Option<Arc<Draining>>) -> Arc<Self> {
        Arc::new(Self {
            drained,
            ..Self::default()
        })
    }

    pub(super) fn drains(&self, tracker: &Arc<Tracker>) {
        if let Some(drained) = &self.drained {
            drained.add(tracker);
        }
    }

    /// The transport was flushed of all that was written to it.
    pub(super) fn flushed(&self) {
        self.wire.flushed();
        if self.has_waiting.load(SeqCst) {
            self.settle();
        }
    }

    /// The transport is gone, and all that was not flushed with it.
    pub(super) fn closed(&self) {
        let mut waiting = lock(&self.waiting);
        waiting.closed = true;
        let departures = std::mem::take(&mut waiting.departures);
        drop(waiting);
        for (departure, _) in departures {
            departure.closed();
        }
    }

    pub(super) fn await_flush(&self, departure: &Arc<Departure>, awaited: Awaited) {
        let mut waiting = lock(&self.waiting);
        if waiting.closed {
            drop(waiting);
            if self.wire.has_covered(awaited) {
                departure.flushed();
            } else {
                departure.closed();
            }
            return;
        }
        waiting.departures.push((departure.clone(), awaited));
        self.has_waiting.store(true, SeqCst);
        drop(waiting);
        // The flush may have come between the look at the counters and the push. One that finds
        // `has_waiting` unset has stored what it covers before, so it is seen here.
        self.settle();
    }

    fn settle(&self) {
        let flushed_in = self.wire.flushed_in();
        let mut over = Vec::new();
        let mut waiting = lock(&self.waiting);
        waiting.departures.retain(|(departure, awaited)| {
            let is_covered = self.wire.has_covered(*awaited);
            let is_over = is_covered || departure.was_dropped_by(flushed_in);
            if is_over {
                over.push((departure.clone(), is_covered));
            }
            !is_over
        });
        self.has_waiting
            .store(!waiting.departures.is_empty(), SeqCst);
        drop(waiting);
        for (departure, is_covered) in over {
            if is_covered {
                departure.flushed();
            } else {
                departure.closed();
            }
        }
    }
}

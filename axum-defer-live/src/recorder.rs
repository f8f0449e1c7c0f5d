//! The lock around the record. Observers never wait for it.

use std::sync::{
    Mutex, MutexGuard, PoisonError, TryLockError,
    atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::SeqCst},
    mpsc::{Receiver, SyncSender, sync_channel},
};

use crate::{
    event::{Event, QueuedEvent},
    record::Record,
};

/// The number of events that can wait while the record is locked, which it is while a snapshot is
/// copied.
pub(crate) const QUEUE_CAPACITY: usize = 4096;

/// The record, and a queue for events that arrive while it is locked. The next owner of the lock
/// applies queued events first, so that the events of a callback stay in order.
pub(crate) struct Recorder {
    record: Mutex<(Record, Receiver<QueuedEvent>)>,
    queue: SyncSender<QueuedEvent>,
    has_queued: AtomicBool,
    dropped: AtomicU64,
}

type Guard<'a> = MutexGuard<'a, (Record, Receiver<QueuedEvent>)>;

impl Recorder {
    pub(crate) fn new(record: Record) -> Self {
        let (queue, receiver) = sync_channel(QUEUE_CAPACITY);
        Self {
            record: Mutex::new((record, receiver)),
            queue,
            has_queued: AtomicBool::new(false),
            dropped: AtomicU64::new(0),
        }
    }

    pub(crate) fn record(&self, event: Event<'_>) {
        match self.try_lock() {
            Some(mut guard) => guard.0.apply(event),
            None => self.enqueue(event.into_queued()),
        }
    }

    /// Locks the record, waiting for other readers.
    pub(crate) fn with_record<T>(&self, read: impl FnOnce(&mut Record) -> T) -> T {
        let mut guard = self.record.lock().unwrap_or_else(PoisonError::into_inner);
        self.apply_queued(&mut guard);
        read(&mut guard.0)
    }

    fn try_lock(&self) -> Option<Guard<'_>> {
        let mut guard = match self.record.try_lock() {
            Ok(guard) => guard,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        self.apply_queued(&mut guard);
        Some(guard)
    }

    /// Queues an event for the next owner of the lock. Drops and counts it if the queue is full.
    fn enqueue(&self, event: QueuedEvent) {
        if self.queue.try_send(event).is_err() {
            self.dropped.fetch_add(1, Relaxed);
        }
        self.has_queued.store(true, SeqCst);
    }

    fn apply_queued(&self, guard: &mut Guard<'_>) {
        if !self.has_queued.load(Relaxed) {
            return;
        }
        self.has_queued.store(false, SeqCst);
        let (record, receiver) = &mut **guard;
        record.counts.events_dropped = self.dropped.load(Relaxed);
        for event in receiver.try_iter().take(QUEUE_CAPACITY) {
            record.apply(*event);
        }
    }
}

#[cfg(test)]
mod tests {
    use axum_defer::Phase;
    use tokio::time::Instant;

    use super::*;
    use crate::{
        event::{CallbackData, EventKind, RequestText},
        record::Limits,
    };

    fn recorder() -> Recorder {
        Recorder::new(Record::new(Limits {
            requests: 10,
            failures: 10,
            names: 10,
        }))
    }

    fn event() -> Event<'static> {
        let callback = CallbackData {
            id: 1,
            name: None,
            location: std::panic::Location::caller(),
            phase: Phase::After,
            scope: 1,
            started_at: Instant::now(),
            time_to_head: None,
            request: RequestText::default(),
        };
        Event::Callback(callback, Instant::now(), EventKind::Registered)
    }

    #[test]
    fn full_queue_drops_and_counts_events() {
        let recorder = recorder();
        recorder.with_record(|_| {
            for _ in 0..QUEUE_CAPACITY + 7 {
                recorder.record(event());
            }
        });
        recorder.record(event());
        recorder.with_record(|record| {
            assert_eq!(record.counts.registered, QUEUE_CAPACITY as u64 + 1);
            assert_eq!(record.counts.events_dropped, 7);
        });
    }

    #[test]
    fn queued_event_is_seen_by_next_reader() {
        let recorder = recorder();
        recorder.with_record(|_| recorder.record(event()));
        assert_eq!(recorder.with_record(|record| record.counts.registered), 1);
    }

    #[test]
    fn every_event_is_recorded_or_counted_as_dropped() {
        const EACH: u64 = 20_000;
        let recorder = recorder();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..EACH {
                        recorder.record(event());
                    }
                });
            }
        });
        let total =
            recorder.with_record(|record| record.counts.registered + record.counts.events_dropped);
        assert_eq!(total, 4 * EACH);
    }
}

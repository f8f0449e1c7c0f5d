//! The way into the record, on which nobody waits.

use std::sync::{
    Mutex, MutexGuard, PoisonError, TryLockError,
    atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::SeqCst},
    mpsc::{Receiver, SyncSender, sync_channel},
};

use super::{record::Record, told::Message};

/// So many events may wait while the record is locked: a snapshot of it takes less than a
/// millisecond.
pub(super) const WAITING: usize = 4096;

/// The record, and beside it the events that came while somebody else had it. Whoever gets it next
/// applies them first, so that those of one callback stay in their order.
pub(super) struct Inbox {
    record: Mutex<(Record, Receiver<Message>)>,
    sender: SyncSender<Message>,
    has_waiting: AtomicBool,
    dropped: AtomicU64,
}

pub(super) type Opened<'a> = MutexGuard<'a, (Record, Receiver<Message>)>;

impl Inbox {
    pub(super) fn new(record: Record) -> Self {
        let (sender, receiver) = sync_channel(WAITING);
        Self {
            record: Mutex::new((record, receiver)),
            sender,
            has_waiting: AtomicBool::new(false),
            dropped: AtomicU64::new(0),
        }
    }

    /// The record, unless somebody else has it.
    #[inline]
    pub(super) fn try_open(&self) -> Option<Opened<'_>> {
        let mut opened = match self.record.try_lock() {
            Ok(opened) => opened,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        self.apply_waiting(&mut opened);
        Some(opened)
    }

    /// For whoever has the record next; where there is no room, it is dropped and counted.
    #[cold]
    pub(super) fn put_aside(&self, message: Message) {
        if self.sender.try_send(message).is_err() {
            self.dropped.fetch_add(1, Relaxed);
        }
        self.has_waiting.store(true, SeqCst);
    }

    #[inline]
    fn apply_waiting(&self, opened: &mut Opened<'_>) {
        if self.has_waiting.load(Relaxed) {
            self.apply(opened);
        }
    }

    #[cold]
    fn apply(&self, opened: &mut Opened<'_>) {
        self.has_waiting.store(false, SeqCst);
        let (record, receiver) = &mut **opened;
        record.dropped = self.dropped.load(Relaxed);
        for message in receiver.try_iter().take(WAITING) {
            record.apply(message);
        }
    }

    /// For those who look. They wait for each other, and nobody waits for them.
    pub(super) fn look<T>(&self, look: impl FnOnce(&mut Record) -> T) -> T {
        let mut opened = self.record.lock().unwrap_or_else(PoisonError::into_inner);
        self.apply_waiting(&mut opened);
        look(&mut opened.0)
    }
}

#[cfg(test)]
mod tests {
    use std::panic::Location;

    use super::*;
    use crate::{
        live::{
            record::Limits,
            told::{Message, What},
        },
        observe::{callback_info::CallbackInfo, phase::Phase},
    };

    fn inbox() -> Inbox {
        let limits = Limits {
            requests: 10,
            failures: 10,
        };
        Inbox::new(Record::new(limits, 10))
    }

    fn message() -> Message {
        let callback = CallbackInfo {
            id: 1,
            name: None,
            location: Location::caller(),
            phase: Phase::After,
            scope: None,
            #[cfg(feature = "tracing")]
            span: None,
        };
        Message::of(&callback, What::Registered)
    }

    #[test]
    fn while_somebody_looks_events_are_put_aside_and_then_dropped_and_counted() {
        let inbox = inbox();
        inbox.look(|_| {
            for _ in 0..WAITING + 7 {
                assert!(inbox.try_open().is_none());
                inbox.put_aside(message());
            }
        });
        let opened = inbox.try_open().unwrap();
        assert_eq!(opened.0.counts.registered, WAITING as u64);
        assert_eq!(opened.0.dropped, 7);
    }

    #[test]
    fn what_was_put_aside_is_seen_by_who_looks_next() {
        let inbox = inbox();
        inbox.look(|_| inbox.put_aside(message()));
        assert_eq!(inbox.look(|record| record.counts.registered), 1);
    }

    #[test]
    fn from_many_threads_each_event_is_recorded_or_counted_as_dropped() {
        const EACH: u64 = 20_000;
        let inbox = inbox();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..EACH {
                        match inbox.try_open() {
                            Some(mut opened) => opened.0.apply(message()),
                            None => inbox.put_aside(message()),
                        }
                    }
                });
            }
        });
        let told = inbox.look(|record| record.counts.registered + record.dropped);
        assert_eq!(told, 4 * EACH);
    }
}

//! One response on its way out: over when all of its bytes have left the process.

use std::sync::Arc;

use super::connection::Connection;
use crate::{
    drain::Tracker,
    sync::{AtomicBool, AtomicU64, Mutex, Ordering, lock},
};

/// What became of a transmission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transmitted {
    /// The transport has accepted every byte and was flushed.
    Sent { bytes: u64 },
    /// The connection, or the stream on it, ended before that.
    Aborted { bytes: u64 },
}

/// Told once what became of the transmission.
type Waiter = Box<dyn FnOnce(Transmitted) + Send>;

/// The response to one request, as the connection sees it.
///
/// It is over when its body has ended, every buffer of it has been consumed (which a server does
/// when it writes a buffer, or copies it to write it), and the connection was flushed after that.
pub(crate) struct Transmission {
    connection: Arc<Connection>,
    /// Somebody has deferred something, so the buffers are worth watching.
    watched: AtomicBool,
    /// There is a scope, so the body may still defer something.
    has_scope: AtomicBool,
    /// The connection's round in which all of the response was in h2's queue, or [`NOT_QUEUED`].
    queued_in: AtomicU64,
    /// The connection's flush that covers all buffers that were consumed.
    covered_by: AtomicU64,
    state: Mutex<State>,
}

const NOT_QUEUED: u64 = u64::MAX;

#[derive(Default)]
struct State {
    /// What the flush that ends the transmission has to cover, once the body has ended.
    ended: Option<Flush>,
    /// Buffers that the server has taken and not consumed.
    unconsumed: usize,
    /// Bytes of the body that the server has consumed.
    bytes: u64,
    /// On the connection's list of those that wait for a flush.
    awaits_flush: bool,
    over: Option<Transmitted>,
    waiters: Vec<Waiter>,
}

/// Which flush is the one that covers the end of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flush {
    /// The next one: nothing of the response is left in a queue that a flush could overtake.
    Next,
    /// The next one that covers more than so many bytes of the connection, and all buffers.
    ///
    /// What ends an HTTP/2 response without a buffer of its own (its only HEADERS, its trailers,
    /// an empty DATA frame) can't be seen leaving h2's queue, but it has not been written yet.
    Beyond(u64),
}

impl Transmission {
    pub(crate) fn new(connection: Arc<Connection>) -> Arc<Self> {
        Arc::new(Self {
            connection,
            watched: AtomicBool::new(false),
            has_scope: AtomicBool::new(false),
            queued_in: AtomicU64::new(NOT_QUEUED),
            covered_by: AtomicU64::new(0),
            state: Mutex::default(),
        })
    }

    /// Buffers taken from now on are watched, and a shutdown of the server drains this tracker.
    pub(crate) fn watch(&self, tracker: &Arc<Tracker>) {
        self.watched.store(true, Ordering::Release);
        self.connection.drains(tracker);
    }

    /// A shutdown of the server drains this tracker.
    pub(crate) fn drains(&self, tracker: &Arc<Tracker>) {
        self.connection.drains(tracker);
    }

    pub(crate) fn is_watched(&self) -> bool {
        self.watched.load(Ordering::Acquire)
    }

    /// A scope was opened for the request.
    pub(crate) fn scope_opened(&self) {
        self.has_scope.store(true, Ordering::Release);
    }

    pub(crate) fn has_scope(&self) -> bool {
        self.has_scope.load(Ordering::Acquire)
    }

    /// Bytes written to the connection so far.
    pub(crate) fn written(&self) -> u64 {
        self.connection.written()
    }

    /// Calls `waiter` as soon as the transmission is over; at once if it is.
    pub(crate) fn when_over(self: &Arc<Self>, waiter: Waiter) {
        self.watched.store(true, Ordering::Release);
        let mut state = lock(&self.state);
        if let Some(over) = state.over {
            drop(state);
            return waiter(over);
        }
        state.waiters.push(waiter);
        self.await_flush_if_written(state);
    }

    /// The server takes a buffer.
    pub(super) fn buffer_taken(&self) {
        lock(&self.state).unconsumed += 1;
    }

    /// A buffer was consumed, so whatever of it is not written yet is ahead of the next flush.
    pub(super) fn buffer_consumed(self: &Arc<Self>, bytes: u64) {
        let mut state = lock(&self.state);
        state.unconsumed = state.unconsumed.saturating_sub(1);
        state.bytes += bytes;
        // A body that is dropped early ends later than its buffers, with bytes of them unwritten.
        self.covered_by
            .store(self.connection.flushes() + 1, Ordering::Release);
        if let Some(Flush::Beyond(written)) = &mut state.ended {
            // What ends the response is written after its last buffer.
            *written = (*written).max(self.connection.written());
            // This buffer has held it back until now.
            if self.queued_in.load(Ordering::Acquire) != NOT_QUEUED {
                self.queued_in
                    .store(self.connection.rounds(), Ordering::Release);
            }
        }
        self.await_flush_if_written(state);
    }

    /// The server threw a buffer away, so the response will never be whole.
    pub(super) fn buffer_discarded(self: &Arc<Self>, bytes: u64) {
        let mut state = lock(&self.state);
        state.unconsumed = state.unconsumed.saturating_sub(1);
        state.bytes += bytes;
        drop(state);
        self.abort(0);
    }

    /// The body has ended; `unwatched` bytes of it went by before anybody watched.
    pub(super) fn ended(self: &Arc<Self>, flush: Flush, unwatched: u64) {
        let mut state = lock(&self.state);
        state.ended = Some(flush);
        state.bytes += unwatched;
        self.await_flush_if_written(state);
    }

    /// All of the response is in h2's queue, behind nothing but the buffers that are watched.
    pub(super) fn queued(&self) {
        let _state = lock(&self.state);
        self.queued_in
            .store(self.connection.rounds(), Ordering::Release);
    }

    /// Whether h2 would have written what ends the response by the flush of this round, if it had
    /// not dropped it because the client reset the stream.
    pub(super) fn was_dropped_by(&self, round: u64) -> bool {
        round > self.queued_in.load(Ordering::Acquire)
    }

    /// Whether nothing that was consumed is missing from the connection's flush of this number.
    pub(super) fn is_covered_by(&self, flush: u64) -> bool {
        flush >= self.covered_by.load(Ordering::Acquire)
    }

    /// The response ended before its body did, or there was none.
    pub(super) fn abort(self: &Arc<Self>, unwatched: u64) {
        let mut state = lock(&self.state);
        state.bytes += unwatched;
        let bytes = state.bytes;
        self.settle(state, Transmitted::Aborted { bytes });
    }

    /// The flush that this was waiting for has happened.
    pub(super) fn flushed(&self) {
        let state = lock(&self.state);
        let bytes = state.bytes;
        self.settle(state, Transmitted::Sent { bytes });
    }

    /// The connection is gone.
    pub(super) fn closed(&self) {
        let state = lock(&self.state);
        let bytes = state.bytes;
        self.settle(state, Transmitted::Aborted { bytes });
    }

    fn await_flush_if_written(self: &Arc<Self>, mut state: Guard<'_>) {
        let State {
            ended: Some(flush),
            unconsumed: 0,
            awaits_flush: false,
            over: None,
            ..
        } = *state
        else {
            return;
        };
        // Nobody waits yet, and while nobody watches nobody will.
        if state.waiters.is_empty() && !self.is_watched() {
            return;
        }
        state.awaits_flush = true;
        drop(state);
        self.connection.await_flush(self.clone(), flush);
    }

    fn settle(&self, mut state: Guard<'_>, over: Transmitted) {
        if state.over.is_some() {
            return;
        }
        state.over = Some(over);
        let waiters = std::mem::take(&mut state.waiters);
        drop(state);
        for waiter in waiters {
            waiter(over);
        }
    }
}

type Guard<'a> = crate::sync::MutexGuard<'a, State>;

impl std::fmt::Debug for Transmission {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = lock(&self.state);
        formatter
            .debug_struct("Transmission")
            .field("ended", &state.ended)
            .field("unconsumed", &state.unconsumed)
            .field("bytes", &state.bytes)
            .field("over", &state.over)
            .finish_non_exhaustive()
    }
}

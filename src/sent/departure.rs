//! The state machine of one response on its way out.
//!
//! ```text
//!  buffers are taken
//!   and consumed
//!      ┌───┐
//!      ▼   │
//!   ┌─────────┐ ended  ┌───────┐  the last buffer  ┌──────────────┐ flushed ┌──────┐
//!   │ flowing │───────▶│ ended │──────────────────▶│ awaits flush │────────▶│ sent │
//!   └─────────┘        └───────┘    is consumed    └──────────────┘         └──────┘
//!        │                 │                              │
//!        │ aborted, closed, or a buffer is discarded      │ closed, or dropped by h2
//!        │                 │                              ▼
//!        │                 │                        ┌─────────┐
//!        └─────────────────┴───────────────────────▶│ aborted │
//!                                                   └─────────┘
//! ```
//!
//! Nothing is asked of the connection unless somebody watches: then a step returns the flush that
//! the connection has to wait for. Waiters are called once, when it is over or if it is already.

use super::wire::{Awaited, Wire};
use crate::sync::{AtomicBool, AtomicU64, Mutex, MutexGuard, Ordering, lock};

/// What became of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transmitted {
    /// The transport has accepted every byte and was flushed.
    Sent { bytes: u64 },
    /// The connection, or the stream on it, ended before that.
    Aborted { bytes: u64 },
}

/// Told once what became of the response.
pub(super) type Waiter = Box<dyn FnOnce(Transmitted) + Send>;

/// What waits for a flush of its connection.
pub(super) trait Departing: Send + Sync {
    fn departure(&self) -> &Departure;
}

pub(super) struct Departure {
    /// Somebody has deferred something, so the buffers are worth watching.
    watched: AtomicBool,
    /// There is a scope, so the body may still defer something.
    has_scope: AtomicBool,
    /// The connection's round in which all of the response was in h2's queue, or [`NOT_QUEUED`].
    queued_in: AtomicU64,
    state: Mutex<State>,
}

const NOT_QUEUED: u64 = u64::MAX;

#[derive(Default)]
struct State {
    /// What the flush that ends the response has to cover, once the body has ended.
    ended: Option<Flush>,
    /// Buffers that the server has taken and not consumed.
    unconsumed: usize,
    /// The number of the flush that covers the last buffer which was consumed.
    flush_of_buffers: u64,
    /// Bytes of the body that the server has consumed.
    bytes: u64,
    /// On the connection's list of those that wait for a flush.
    awaits_flush: bool,
    over: Option<Transmitted>,
    /// One scope waits, mostly, so the first to wait needs no list.
    waiter: Option<Waiter>,
    more_waiters: Vec<Waiter>,
}

/// Which flush is the one that covers the end of a response, beside its buffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flush {
    /// The one of this number: nothing of the response is left in a queue that it could overtake.
    Number(u64),
    /// The next one that covers more than so many bytes of the connection.
    ///
    /// What ends an HTTP/2 response without a buffer of its own (its only HEADERS, its trailers,
    /// an empty DATA frame) can't be seen leaving h2's queue, but it has not been written yet.
    Beyond(u64),
}

impl Flush {
    /// That of the buffers.
    pub(super) const OF_BUFFERS: Self = Self::Number(0);
}

impl Departure {
    pub(super) fn new() -> Self {
        Self {
            watched: AtomicBool::new(false),
            has_scope: AtomicBool::new(false),
            queued_in: AtomicU64::new(NOT_QUEUED),
            state: Mutex::default(),
        }
    }

    /// Buffers taken from now on are watched.
    pub(super) fn watch(&self) {
        self.watched.store(true, Ordering::Release);
    }

    pub(super) fn is_watched(&self) -> bool {
        self.watched.load(Ordering::Acquire)
    }

    pub(super) fn scope_opened(&self) {
        self.has_scope.store(true, Ordering::Release);
    }

    pub(super) fn has_scope(&self) -> bool {
        self.has_scope.load(Ordering::Acquire)
    }

    /// Calls `waiter` as soon as the response is over; at once if it is.
    #[must_use]
    pub(super) fn when_over(&self, waiter: Waiter) -> Option<Awaited> {
        self.watch();
        let mut state = lock(&self.state);
        if let Some(over) = state.over {
            drop(state);
            waiter(over);
            return None;
        }
        match &mut state.waiter {
            first @ None => *first = Some(waiter),
            Some(_) => state.more_waiters.push(waiter),
        }
        self.await_flush_if_consumed(&mut state)
    }

    /// The server takes a buffer.
    pub(super) fn buffer_taken(&self) {
        lock(&self.state).unconsumed += 1;
    }

    /// A buffer was consumed, so whatever of it is not written yet is ahead of the next flush.
    #[must_use]
    pub(super) fn buffer_consumed(&self, bytes: u64, wire: &Wire) -> Option<Awaited> {
        let mut state = lock(&self.state);
        state.unconsumed = state.unconsumed.saturating_sub(1);
        state.bytes += bytes;
        state.flush_of_buffers = wire.next_flush();
        if let Some(Flush::Beyond(written)) = &mut state.ended {
            // What ends the response is written after its last buffer.
            *written = (*written).max(wire.written());
            // This buffer has held it back until now.
            if self.queued_in.load(Ordering::Acquire) != NOT_QUEUED {
                self.queued_in.store(wire.rounds(), Ordering::Release);
            }
        }
        self.await_flush_if_consumed(&mut state)
    }

    /// The server threw a buffer away, so the response will never be whole.
    pub(super) fn buffer_discarded(&self, bytes: u64) {
        let mut state = lock(&self.state);
        state.unconsumed = state.unconsumed.saturating_sub(1);
        state.bytes += bytes;
        settle(state, Ending::Aborted);
    }

    /// The body has ended; `unwatched` bytes of it went by before anybody watched.
    #[must_use]
    pub(super) fn ended(&self, flush: Flush, unwatched: u64) -> Option<Awaited> {
        let mut state = lock(&self.state);
        state.ended = Some(flush);
        state.bytes += unwatched;
        self.await_flush_if_consumed(&mut state)
    }

    /// All of the response is in h2's queue, behind nothing but the buffers that are watched.
    pub(super) fn queued(&self, wire: &Wire) {
        let _state = lock(&self.state);
        self.queued_in.store(wire.rounds(), Ordering::Release);
    }

    /// Whether h2 would have written what ends the response by the flush of this round, if it had
    /// not dropped it because the client reset the stream.
    pub(super) fn was_dropped_by(&self, round: u64) -> bool {
        round > self.queued_in.load(Ordering::Acquire)
    }

    /// The response ended before its body did, or there was none.
    pub(super) fn abort(&self, unwatched: u64) {
        let mut state = lock(&self.state);
        state.bytes += unwatched;
        settle(state, Ending::Aborted);
    }

    /// The flush that this was waiting for has happened.
    pub(super) fn flushed(&self) {
        settle(lock(&self.state), Ending::Sent);
    }

    /// The connection is gone, or the stream on it.
    pub(super) fn closed(&self) {
        settle(lock(&self.state), Ending::Aborted);
    }

    fn await_flush_if_consumed(&self, state: &mut State) -> Option<Awaited> {
        let State {
            ended: Some(flush),
            unconsumed: 0,
            awaits_flush: false,
            over: None,
            flush_of_buffers,
            ..
        } = *state
        else {
            return None;
        };
        // Nobody waits yet, and while nobody watches nobody will.
        if state.waiter.is_none() && !self.is_watched() {
            return None;
        }
        state.awaits_flush = true;
        Some(match flush {
            Flush::Number(number) => Awaited {
                number: number.max(flush_of_buffers),
                beyond: None,
            },
            Flush::Beyond(written) => Awaited {
                number: flush_of_buffers,
                beyond: Some(written),
            },
        })
    }
}

#[derive(Clone, Copy)]
enum Ending {
    Sent,
    Aborted,
}

fn settle(mut state: MutexGuard<'_, State>, ending: Ending) {
    if state.over.is_some() {
        return;
    }
    let bytes = state.bytes;
    let over = match ending {
        Ending::Sent => Transmitted::Sent { bytes },
        Ending::Aborted => Transmitted::Aborted { bytes },
    };
    state.over = Some(over);
    let first = state.waiter.take();
    let more = std::mem::take(&mut state.more_waiters);
    drop(state);
    if let Some(waiter) = first {
        waiter(over);
    }
    if !more.is_empty() {
        more.into_iter().for_each(|waiter| waiter(over));
    }
}

impl std::fmt::Debug for Departure {
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

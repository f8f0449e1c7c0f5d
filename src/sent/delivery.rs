//! The state machine of one response on its way to the transport.
//!
//! ```text
//!  buffers are taken
//!   and consumed
//!      ┌───┐
//!      ▼   │
//!   ┌─────────┐ ended  ┌───────┐  the last buffer  ┌───────────────┐ flush ┌─────────┐
//!   │ flowing │───────▶│ ended │──────────────────▶│ awaiting flush│──────▶│ flushed │
//!   └─────────┘        └───────┘    is consumed    └───────────────┘       └─────────┘
//!        │                 │                               │
//!        │ aborted, closed, stalled, or a buffer           │ closed, stalled, or dropped by h2
//!        │ is discarded    │                               ▼
//!        │                 │                         ┌─────────┐
//!        └─────────────────┴────────────────────────▶│ aborted │
//!                                                    └─────────┘
//! ```
//!
//! While nothing is deferred, the connection is not involved. Otherwise a step returns the flush that
//! the connection must wait for. Each waiter is called once: when the outcome is known, or
//! immediately if it is known already.

#[cfg(feature = "serve")]
use std::sync::Arc;

use super::flush::{FlushTarget, WriteProgress};
use crate::sync::{AtomicBool, AtomicU64, Mutex, MutexGuard, Ordering, lock};

/// The outcome of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DeliveryOutcome {
    /// The transport has accepted every byte and was flushed.
    Flushed { bytes: u64 },
    /// The connection or the stream ended before that, or made no progress for too long.
    Aborted { bytes: u64 },
}

/// Called once with the outcome of a response.
pub(super) type Waiter = Box<dyn FnOnce(DeliveryOutcome) + Send>;

/// The owner of a body that the server does not poll while its stream stalls.
pub(crate) trait OnStall: Send + Sync {
    /// Decides that the response is aborted. Returns `false` if the server polls the body now.
    #[cfg_attr(
        not(feature = "serve"),
        allow(dead_code, reason = "only `serve` has a stall timeout")
    )]
    fn stalled(&self) -> bool;
}

/// A [`ResponseDelivery`] in a larger allocation.
pub(super) type SharedDelivery = dyn AsRef<ResponseDelivery> + Send + Sync;

pub(super) struct ResponseDelivery {
    /// Something was deferred, so buffers are watched.
    watched: AtomicBool,
    /// There is a scope, so the body may still defer something.
    has_scope: AtomicBool,
    /// The connection's round in which all of the response was in h2's queue, or [`NOT_QUEUED`].
    queued_round: AtomicU64,
    /// Only for HTTP/2: the server has something to send.
    has_bytes: AtomicBool,
    /// Only for HTTP/2: bytes of watched buffers that the server has consumed.
    consumed: AtomicU64,
    state: Mutex<State>,
}

const NOT_QUEUED: u64 = u64::MAX;

#[derive(Default)]
struct State {
    /// The flush that ends the response, once the body has ended.
    ended: Option<Flush>,
    /// Buffers that the server has taken and not consumed.
    unconsumed: usize,
    /// The number of the flush that covers the last consumed buffer.
    flush_of_buffers: u64,
    /// Bytes of the body that the server has consumed.
    bytes: u64,
    /// The connection waits for a flush on behalf of this response.
    waits_for_flush: bool,
    outcome: Option<DeliveryOutcome>,
    /// There is one waiter in general, so the first one needs no list.
    waiter: Option<Waiter>,
    more_waiters: Vec<Waiter>,
    #[cfg(feature = "serve")]
    on_stall: Option<Arc<dyn OnStall>>,
}

/// The flush that covers the end of a response, apart from its buffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flush {
    /// The flush with this number.
    Number(u64),
    /// The next flush that covers more than this many bytes of the connection's responses.
    ///
    /// The end of an HTTP/2 response without a buffer of its own (its only HEADERS, its trailers, an
    /// empty DATA frame) leaves h2's queue unseen, but has not been written yet.
    PastOffset(u64),
}

impl Flush {
    /// The flush that covers the buffers.
    pub(super) const OF_BUFFERS: Self = Self::Number(0);
}

impl ResponseDelivery {
    pub(super) fn new() -> Self {
        Self {
            watched: AtomicBool::new(false),
            has_scope: AtomicBool::new(false),
            queued_round: AtomicU64::new(NOT_QUEUED),
            has_bytes: AtomicBool::new(false),
            consumed: AtomicU64::new(0),
            state: Mutex::default(),
        }
    }

    /// Watches the buffers that the server takes from now on.
    pub(super) fn watch(&self) {
        self.watched.store(true, Ordering::Release);
    }

    pub(super) fn is_watched(&self) -> bool {
        self.watched.load(Ordering::Acquire)
    }

    pub(super) fn set_scope(&self) {
        self.has_scope.store(true, Ordering::Release);
    }

    pub(super) fn has_scope(&self) -> bool {
        self.has_scope.load(Ordering::Acquire)
    }

    /// Calls `waiter` when the outcome is known.
    #[must_use]
    pub(super) fn on_delivery(&self, waiter: Waiter) -> Option<FlushTarget> {
        self.watch();
        let mut state = lock(&self.state);
        if let Some(outcome) = state.outcome {
            drop(state);
            waiter(outcome);
            return None;
        }
        match &mut state.waiter {
            first @ None => *first = Some(waiter),
            Some(_) => state.more_waiters.push(waiter),
        }
        self.await_flush_if_consumed(&mut state)
    }

    /// Records that the server has taken a buffer.
    pub(super) fn buffer_taken(&self) {
        lock(&self.state).unconsumed += 1;
    }

    /// Records that the server has consumed a buffer. The next flush covers its unwritten bytes.
    #[must_use]
    pub(super) fn buffer_consumed(
        &self,
        bytes: u64,
        progress: &WriteProgress,
    ) -> Option<FlushTarget> {
        let mut state = lock(&self.state);
        state.unconsumed = state.unconsumed.saturating_sub(1);
        state.bytes += bytes;
        state.flush_of_buffers = progress.next_flush();
        if let Some(Flush::PastOffset(offset)) = &mut state.ended {
            // The end is written after the last buffer.
            *offset = (*offset).max(progress.offset());
            // The end could not leave the queue before this buffer. h2 looks for it after the flush
            // of this buffer, which is a round of its own.
            if self.queued_round.load(Ordering::Acquire) != NOT_QUEUED {
                self.queued_round
                    .store(progress.rounds(), Ordering::Release);
            }
        }
        self.await_flush_if_consumed(&mut state)
    }

    /// Records that the server has dropped a buffer unconsumed. The response cannot become complete.
    pub(super) fn buffer_discarded(&self, bytes: u64) {
        let mut state = lock(&self.state);
        state.unconsumed = state.unconsumed.saturating_sub(1);
        state.bytes += bytes;
        decide(state, Ending::Aborted);
    }

    /// Records the end of the body, of which `unwatched` bytes passed before it was watched.
    #[must_use]
    pub(super) fn ended(&self, flush: Flush, unwatched: u64) -> Option<FlushTarget> {
        let mut state = lock(&self.state);
        state.ended = Some(flush);
        state.bytes += unwatched;
        self.await_flush_if_consumed(&mut state)
    }

    /// Records that all of the response is in h2's queue, behind only watched buffers.
    pub(super) fn queued(&self, progress: &WriteProgress) {
        let _state = lock(&self.state);
        self.queued_round
            .store(progress.rounds(), Ordering::Release);
    }

    /// Returns `true` if h2 would have written the end of the response before the flush of this
    /// round, unless the client has reset the stream.
    pub(super) fn is_missed_by_round(&self, round: u64) -> bool {
        round > self.queued_round.load(Ordering::Acquire)
    }

    /// Records that the response ended before its body, or that there was none.
    pub(super) fn abort(&self, unwatched: u64) {
        let mut state = lock(&self.state);
        state.bytes += unwatched;
        decide(state, Ending::Aborted);
    }

    /// Records that the flush that the response waits for has completed.
    pub(super) fn flushed(&self) {
        decide(lock(&self.state), Ending::Flushed);
    }

    /// Records that the connection or the stream is closed.
    pub(super) fn closed(&self) {
        decide(lock(&self.state), Ending::Aborted);
    }

    /// Records that the client has accepted nothing for the stall timeout.
    #[cfg(feature = "serve")]
    pub(super) fn stalled(&self) {
        let on_stall = lock(&self.state).on_stall.clone();
        let is_abandoned = on_stall.is_some_and(|target| target.stalled());
        let state = lock(&self.state);
        if is_abandoned || state.waiter.is_some() {
            decide(state, Ending::Aborted);
        }
    }

    /// Calls `target` when the response stalls, as long as it is not decided.
    #[cfg(feature = "serve")]
    pub(super) fn on_stall(&self, target: Arc<dyn OnStall>) {
        let mut state = lock(&self.state);
        if state.outcome.is_none() {
            state.on_stall = Some(target);
        }
    }

    #[cfg(feature = "serve")]
    pub(super) fn is_decided(&self) -> bool {
        lock(&self.state).outcome.is_some()
    }

    /// Records whether the server has something to send: the last poll of the body returned a frame,
    /// or the body has ended.
    pub(super) fn set_has_bytes(&self, has_bytes: bool) {
        self.has_bytes.store(has_bytes, Ordering::Relaxed);
    }

    /// Counts bytes that were consumed. Called only by the task that owns the IO.
    pub(super) fn add_consumed(&self, bytes: u64) {
        let consumed = self.consumed.load(Ordering::Relaxed);
        self.consumed.store(consumed + bytes, Ordering::Relaxed);
    }

    /// Returns the number of consumed bytes if the server has more to send.
    #[cfg(feature = "serve")]
    pub(super) fn blocked_at(&self) -> Option<u64> {
        let has_bytes = self.has_bytes.load(Ordering::Relaxed);
        has_bytes.then(|| self.consumed.load(Ordering::Relaxed))
    }

    fn await_flush_if_consumed(&self, state: &mut State) -> Option<FlushTarget> {
        let State {
            ended: Some(flush),
            unconsumed: 0,
            waits_for_flush: false,
            outcome: None,
            flush_of_buffers,
            ..
        } = *state
        else {
            return None;
        };
        // An unwatched response has no waiter, and gets none.
        if state.waiter.is_none() && !self.is_watched() {
            return None;
        }
        state.waits_for_flush = true;
        Some(match flush {
            Flush::Number(number) => FlushTarget {
                number: number.max(flush_of_buffers),
                past_offset: None,
            },
            Flush::PastOffset(offset) => FlushTarget {
                number: flush_of_buffers,
                past_offset: Some(offset),
            },
        })
    }
}

#[derive(Clone, Copy)]
enum Ending {
    Flushed,
    Aborted,
}

/// Stores the outcome, unless there is one, and calls the waiters without the lock.
fn decide(mut state: MutexGuard<'_, State>, ending: Ending) {
    if state.outcome.is_some() {
        return;
    }
    let bytes = state.bytes;
    let outcome = match ending {
        Ending::Flushed => DeliveryOutcome::Flushed { bytes },
        Ending::Aborted => DeliveryOutcome::Aborted { bytes },
    };
    state.outcome = Some(outcome);
    let first = state.waiter.take();
    let more = std::mem::take(&mut state.more_waiters);
    #[cfg(feature = "serve")]
    let _on_stall = state.on_stall.take();
    drop(state);
    if let Some(waiter) = first {
        waiter(outcome);
    }
    if !more.is_empty() {
        more.into_iter().for_each(|waiter| waiter(outcome));
    }
}

impl std::fmt::Debug for ResponseDelivery {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = lock(&self.state);
        formatter
            .debug_struct("ResponseDelivery")
            .field("ended", &state.ended)
            .field("unconsumed", &state.unconsumed)
            .field("bytes", &state.bytes)
            .field("outcome", &state.outcome)
            .finish_non_exhaustive()
    }
}

//! The HTTP/2 responses of a connection that may stall: the client opens no flow-control window, so
//! the transport stays writable, and h2 keeps the frames.

use std::{
    sync::{
        Mutex, Weak,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::time::Instant;

use super::delivery::{ResponseDelivery, SharedDelivery};

/// The responses, each with its progress at the last check.
#[derive(Default)]
pub(crate) struct Streams {
    has_some: AtomicBool,
    list: Mutex<List>,
}

#[derive(Default)]
struct List {
    streams: Vec<Stream>,
    /// The length at which ended responses are removed, so that adding one stays cheap.
    sweep_at: usize,
}

struct Stream {
    response: Weak<SharedDelivery>,
    /// `Some` if there is something to send: the number of consumed bytes, and the time of the last
    /// progress.
    blocked: Option<(u64, Instant)>,
}

impl Streams {
    pub(super) fn add(&self, response: Weak<SharedDelivery>) {
        let mut list = lock_list(&self.list);
        if list.streams.len() >= list.sweep_at {
            list.streams
                .retain(|stream| stream.response.strong_count() > 0);
            list.sweep_at = 16.max(2 * list.streams.len());
        }
        list.streams.push(Stream {
            response,
            blocked: None,
        });
        self.has_some.store(true, Relaxed);
    }

    /// Returns `true` if there may be a response.
    pub(crate) fn has_some(&self) -> bool {
        self.has_some.load(Relaxed)
    }

    /// Aborts the responses that have made no progress for this time.
    pub(crate) fn abort_stalled(&self, timeout: Duration) {
        let now = Instant::now();
        // Dropped after the lock is released, because the last reference drops waiters.
        let mut responses = Vec::new();
        let mut list = lock_list(&self.list);
        list.streams.retain_mut(|stream| {
            let Some(response) = stream.response.upgrade() else {
                return false;
            };
            let is_stalled = stream.is_stalled((*response).as_ref(), now, timeout);
            let is_decided = (*response).as_ref().is_decided();
            responses.push((response, is_stalled));
            !is_decided
        });
        self.has_some.store(!list.streams.is_empty(), Relaxed);
        drop(list);
        for (response, is_stalled) in responses {
            if is_stalled {
                (*response).as_ref().stalled();
            }
        }
    }
}

impl Stream {
    fn is_stalled(&mut self, delivery: &ResponseDelivery, now: Instant, timeout: Duration) -> bool {
        let blocked = delivery.blocked_at();
        match (self.blocked, blocked) {
            (Some((before, since)), Some(consumed)) if before == consumed => {
                let is_stalled = now.duration_since(since) >= timeout;
                if is_stalled {
                    // The server may poll its body at this moment.
                    self.blocked = Some((consumed, now));
                }
                is_stalled
            }
            _ => {
                self.blocked = blocked.map(|consumed| (consumed, now));
                false
            }
        }
    }
}

fn lock_list(list: &Mutex<List>) -> std::sync::MutexGuard<'_, List> {
    list.lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

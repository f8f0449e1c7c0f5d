//! The last requests, in a bounded number of slots.

use std::collections::{HashMap, VecDeque};

use tokio::time::Instant;

use crate::{
    event::CallbackData,
    outcome::Outcome,
    request::{CallbackRecord, RequestRecord},
};

/// The number of slots that are allocated together.
const CHUNK: usize = 1_000;

pub(crate) struct Requests {
    pub(crate) limit: usize,
    pub(crate) evicted: u64,
    /// The used slots come first.
    slots: Vec<RequestRecord>,
    used: usize,
    /// The slot of each recorded scope.
    index: HashMap<u64, usize>,
    /// The slots in which nothing was pending or running, in the order of eviction.
    finished: VecDeque<usize>,
}

impl Requests {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            limit,
            evicted: 0,
            slots: Vec::new(),
            used: 0,
            index: HashMap::new(),
            finished: VecDeque::new(),
        }
    }

    pub(crate) fn all(&self) -> &[RequestRecord] {
        &self.slots[..self.used]
    }

    pub(crate) fn get_mut(&mut self, scope: u64) -> Option<&mut RequestRecord> {
        let slot = *self.index.get(&scope)?;
        self.slots.get_mut(slot)
    }

    /// Returns the request of this callback. It is added if there is room, or if another one can be
    /// evicted.
    pub(crate) fn get_or_insert(
        &mut self,
        callback: &CallbackData<'_>,
        now: Instant,
        events_were_dropped: bool,
    ) -> Option<&mut RequestRecord> {
        let slot = match self.index.get(&callback.scope) {
            Some(&slot) => slot,
            None => {
                let slot = self.free_slot(now, events_were_dropped)?;
                self.index.insert(callback.scope, slot);
                self.slots[slot].reset(callback);
                slot
            }
        };
        self.slots.get_mut(slot)
    }

    fn free_slot(&mut self, now: Instant, events_were_dropped: bool) -> Option<usize> {
        if self.used < self.limit {
            if self.used == self.slots.len() {
                self.grow(now);
            }
            self.used += 1;
            return Some(self.used - 1);
        }
        let slot = self.oldest_finished().or_else(|| {
            // A request whose last event was dropped looks unfinished, and would stay.
            events_were_dropped.then(|| self.oldest()).flatten()
        })?;
        self.index.remove(&self.slots[slot].scope);
        self.evicted += 1;
        Some(slot)
    }

    /// Allocates slots, and twice as much room in the map: with less, it would grow again because of
    /// the removed keys.
    fn grow(&mut self, now: Instant) {
        let more = (self.limit - self.used).min(CHUNK);
        self.slots.reserve_exact(more);
        self.finished.reserve(more);
        self.index
            .reserve(2 * (self.used + more) - self.index.len());
        let slots = std::iter::repeat_with(|| RequestRecord::unused(now));
        self.slots.extend(slots.take(more));
    }

    /// Requests that still have pending or running callbacks are never evicted, unless events were
    /// dropped.
    fn oldest_finished(&mut self) -> Option<usize> {
        while let Some(slot) = self.finished.pop_front() {
            let request = &mut self.slots[slot];
            request.is_queued = false;
            if !request.is_unfinished() {
                return Some(slot);
            }
        }
        None
    }

    fn oldest(&self) -> Option<usize> {
        let scopes = self.all().iter().enumerate();
        let (slot, _) = scopes.min_by_key(|(_, request)| request.scope)?;
        Some(slot)
    }

    /// Records the end of a callback. Returns `None` if the callback was not recorded.
    pub(crate) fn end(
        &mut self,
        callback: &CallbackData<'_>,
        outcome: Outcome,
        at: Instant,
        version: u64,
    ) -> Option<&CallbackRecord> {
        let slot = *self.index.get(&callback.scope)?;
        let request = self.slots.get_mut(slot)?;
        request.changed = version;
        let recorded = request.callback_mut(callback.id)?;
        if recorded.ended.replace((at, outcome)).is_none() {
            request.unfinished -= 1;
            if request.unfinished == 0 && !request.is_queued {
                request.is_queued = true;
                self.finished.push_back(slot);
            }
        }
        request.callback_mut(callback.id).map(|recorded| &*recorded)
    }
}

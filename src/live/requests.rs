//! The last requests, in a bounded number of places that are used again.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

use super::{end::End, index::Index, request::Request};
use crate::observe::{callback_info::CallbackInfo, scope_info::ScopeInfo};

/// Room is made for so many at a time.
const AT_A_TIME: usize = 1_000;

pub(super) struct Requests {
    pub(super) limit: usize,
    pub(super) fallen_out: u64,
    places: Vec<Request>,
    /// Those that have been used are the first.
    used: usize,
    index: Index,
    /// Those in which nothing is pending or running, in the order in which they may go.
    finished: VecDeque<u32>,
}

/// What was known of a callback that ended.
pub(super) struct Known {
    pub(super) by_name: u32,
    pub(super) had_started: bool,
    pub(super) at: Instant,
}

impl Requests {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            fallen_out: 0,
            places: Vec::new(),
            used: 0,
            index: Index::new(),
            finished: VecDeque::new(),
        }
    }

    pub(super) fn all(&self) -> &[Request] {
        &self.places[..self.used]
    }

    #[inline]
    pub(super) fn get_mut(&mut self, number: u64) -> Option<&mut Request> {
        let place = self.index.get(number)?;
        self.places.get_mut(place as usize)
    }

    /// The request of this scope, which may have to make room for; `None` where there is none.
    #[inline]
    pub(super) fn open(
        &mut self,
        scope: &ScopeInfo,
        at: Instant,
        dropped_events: bool,
    ) -> Option<&mut Request> {
        let place = match self.index.get(scope.number) {
            Some(place) => place,
            None => {
                let place = self.free_place(at, dropped_events)?;
                self.index.insert(scope.number, place);
                self.places[place as usize].begin(scope);
                place
            }
        };
        self.places.get_mut(place as usize)
    }

    #[inline]
    fn free_place(&mut self, at: Instant, dropped_events: bool) -> Option<u32> {
        if self.used < self.limit {
            if self.used == self.places.len() {
                self.make_room(at);
            }
            self.used += 1;
            return Some(self.used as u32 - 1);
        }
        let place = self.oldest(dropped_events)?;
        self.index.remove(self.places[place as usize].number);
        self.fallen_out += 1;
        Some(place)
    }

    #[cold]
    fn make_room(&mut self, at: Instant) {
        let more = (self.limit - self.used).min(AT_A_TIME);
        self.places.reserve_exact(more);
        self.finished.reserve(more);
        self.places
            .extend(std::iter::repeat_with(|| Request::empty(at)).take(more));
    }

    /// The request that makes room: one that is finished. While there is none, new ones are not
    /// recorded; unless events were dropped, so that some of these may be finished and not known to
    /// be.
    #[inline]
    fn oldest(&mut self, dropped_events: bool) -> Option<u32> {
        while let Some(place) = self.finished.pop_front() {
            let request = &mut self.places[place as usize];
            request.is_queued = false;
            if !request.is_unfinished() {
                return Some(place);
            }
        }
        if !dropped_events {
            return None;
        }
        let numbers = self.all().iter().enumerate();
        let oldest = numbers.min_by_key(|(_, request)| request.number);
        oldest.map(|(place, _)| place as u32)
    }

    /// Of a callback that ended, what was known until then. It ran for so long, or did not run.
    #[inline]
    pub(super) fn end(
        &mut self,
        callback: &CallbackInfo<'_>,
        end: End,
        took: Option<Duration>,
        at: Option<Instant>,
        version: u64,
    ) -> Option<Known> {
        let place = self.index.get(callback.scope?.number)?;
        let request = self.places.get_mut(place as usize)?;
        let recorded = request.callback(callback.id)?;
        let began = recorded.started.zip(took);
        let at = began.map_or_else(
            || at.unwrap_or_else(Instant::now),
            |(started, took)| started + took,
        );
        let known = Known {
            by_name: recorded.by_name,
            had_started: recorded.started.is_some(),
            at,
        };
        let is_first = recorded.ended.replace((at, end)).is_none();
        request.changed = version;
        if is_first {
            request.unfinished -= 1;
            if request.unfinished == 0 && !request.is_queued {
                request.is_queued = true;
                self.finished.push_back(place);
            }
        }
        Some(known)
    }
}

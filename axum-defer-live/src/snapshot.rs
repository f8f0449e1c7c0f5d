//! A copy of the record. It is rendered without the lock.

use std::{
    cmp::Reverse,
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

use crate::{
    names::NameStats,
    record::{Counts, Failure, Record},
    request::{CallbackRecord, RequestRecord},
    sparkline::BAR_SECONDS,
};

/// The number of pending and running callbacks that are shown, oldest first.
const MAX_UNFINISHED: usize = 200;

/// The part of the record to copy.
#[derive(Clone, Copy)]
pub(crate) struct Filter {
    /// Only changes after this version.
    pub(crate) since: u64,
    /// The number of requests, newest first.
    pub(crate) max_requests: usize,
}

pub(crate) struct Snapshot {
    pub(crate) version: u64,
    /// Identifies the record, because another process starts with an empty one.
    pub(crate) instance: u64,
    pub(crate) clock: Clock,
    pub(crate) max_requests: usize,
    pub(crate) max_failures: usize,
    pub(crate) counts: Counts,
    pub(crate) requests_evicted: u64,
    pub(crate) unfinished: Vec<Unfinished>,
    /// Newest first.
    pub(crate) requests: Vec<RequestRecord>,
    /// Newest first.
    pub(crate) failures: Vec<Failure>,
    /// With their index.
    pub(crate) names: Vec<(usize, NameStats)>,
    /// The current bar of the sparklines.
    pub(crate) bar: u64,
}

/// A pending or running callback.
pub(crate) struct Unfinished {
    pub(crate) callback: CallbackRecord,
    pub(crate) scope: u64,
    pub(crate) request: String,
    pub(crate) route: String,
    pub(crate) is_completed: bool,
}

/// A converter from monotonic time to the time of day. A changed system clock does not change the order
/// of events.
#[derive(Clone, Copy)]
pub(crate) struct Clock {
    pub(crate) now: Instant,
    created: Instant,
    created_at: SystemTime,
}

impl Clock {
    pub(crate) fn time_of(&self, at: Instant) -> SystemTime {
        match at.checked_duration_since(self.created) {
            Some(after) => self.created_at + after,
            None => self.created_at - self.created.saturating_duration_since(at),
        }
    }

    pub(crate) fn since(&self, at: Instant) -> Duration {
        self.now.saturating_duration_since(at)
    }
}

impl Snapshot {
    pub(crate) fn new(record: &Record, filter: Filter) -> Self {
        let now = Instant::now();
        let failures = record.failures.iter().rev();
        Self {
            version: record.version,
            instance: instance(record),
            clock: Clock {
                now,
                created: record.created,
                created_at: record.created_at,
            },
            max_requests: record.requests.limit,
            max_failures: record.max_failures,
            counts: record.counts,
            requests_evicted: record.requests.evicted,
            unfinished: unfinished(record),
            requests: requests(record, filter),
            failures: failures
                .filter(|failure| failure.added > filter.since)
                .cloned()
                .collect(),
            names: names(record, filter.since, now),
            bar: record.bar(now),
        }
    }
}

pub(crate) fn instance(record: &Record) -> u64 {
    let since = record.created_at.duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_micros() as u64)
}

fn unfinished(record: &Record) -> Vec<Unfinished> {
    let requests = record.requests.all().iter();
    let mut all: Vec<_> = requests
        .filter(|request| request.is_unfinished())
        .flat_map(|request| {
            request
                .callbacks
                .iter()
                .map(move |callback| (request, callback))
        })
        .filter(|(_, callback)| callback.ended.is_none())
        .collect();
    all.sort_by_key(|(_, callback)| (callback.started_at.is_none(), callback.registered_at));
    all.truncate(MAX_UNFINISHED);
    all.into_iter()
        .map(|(request, callback)| Unfinished {
            callback: callback.clone(),
            scope: request.scope,
            request: request.text.label(),
            route: request.text.route_or_path().to_owned(),
            is_completed: request.completion.is_some(),
        })
        .collect()
}

fn requests(record: &Record, filter: Filter) -> Vec<RequestRecord> {
    let requests = record.requests.all().iter();
    let mut all: Vec<_> = requests
        .filter(|request| request.changed > filter.since)
        .collect();
    all.sort_by_key(|request| Reverse(request.scope));
    all.truncate(filter.max_requests);
    all.into_iter().cloned().collect()
}

/// Includes names without a change once per bar, because their sparklines move with time.
fn names(record: &Record, since: u64, now: Instant) -> Vec<(usize, NameStats)> {
    let age = now.saturating_duration_since(record.created);
    let has_moved = age.as_millis() % (u128::from(BAR_SECONDS) * 1000) < 1000;
    let names = record.names.all().iter().enumerate();
    names
        .filter(|(_, stats)| stats.ran + stats.did_not_run > 0)
        .filter(|(_, stats)| stats.changed > since || has_moved)
        .map(|(index, stats)| (index, stats.clone()))
        .collect()
}

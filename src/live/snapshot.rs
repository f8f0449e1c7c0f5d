//! A copy of the record, to be written out without its lock.

use std::{
    panic::Location,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

use super::{
    recent::BAR_SECONDS,
    record::{Counts, Failure, Limits, Record},
    request::Request,
};

/// Of the callbacks that are pending or running, so many are shown: the oldest.
const UNFINISHED: usize = 200;

/// What of the record is asked for.
#[derive(Clone, Copy)]
pub(super) struct Wanted {
    /// Only what has changed since this version.
    pub(super) since: u64,
    /// At most so many requests, the newest.
    pub(super) requests: usize,
}

pub(super) struct Snapshot {
    pub(super) version: u64,
    /// Which record this is: another process has another one.
    pub(super) instance: u128,
    pub(super) clock: Clock,
    pub(super) limits: Limits,
    pub(super) counts: Counts,
    pub(super) requests_fallen_out: u64,
    pub(super) dropped: u64,
    pub(super) unfinished: Vec<Unfinished>,
    /// The newest first.
    pub(super) requests: Vec<Request>,
    /// The newest first.
    pub(super) failures: Vec<Failure>,
    pub(super) names: Vec<Name>,
}

/// What time it is.
#[derive(Clone, Copy)]
pub(super) struct Clock {
    pub(super) now: Instant,
    began: Instant,
    began_at: SystemTime,
}

impl Clock {
    /// The time of day, which follows from the monotonic clock: a clock that is set back does not
    /// change the order of events.
    pub(super) fn time_of(&self, at: Instant) -> SystemTime {
        match at.checked_duration_since(self.began) {
            Some(after) => self.began_at + after,
            None => self.began_at - self.began.saturating_duration_since(at),
        }
    }

    pub(super) fn since(&self, at: Instant) -> Duration {
        self.now.saturating_duration_since(at)
    }
}

pub(super) struct Unfinished {
    pub(super) id: u64,
    pub(super) name: Option<Arc<str>>,
    pub(super) place: &'static Location<'static>,
    pub(super) phase: &'static str,
    pub(super) registered: Instant,
    pub(super) started: Option<Instant>,
    pub(super) request: u64,
    pub(super) label: String,
    pub(super) route: String,
    pub(super) is_over: bool,
}

pub(super) struct Name {
    pub(super) key: usize,
    pub(super) label: Arc<str>,
    pub(super) is_named: bool,
    pub(super) place: Option<&'static Location<'static>>,
    pub(super) ran: u64,
    pub(super) failed: u64,
    pub(super) did_not_run: u64,
    /// The 50th, 95th and 99th percentile.
    pub(super) waited: [Duration; 3],
    pub(super) took: [Duration; 3],
    pub(super) bars: Vec<[u32; 2]>,
}

impl Snapshot {
    pub(super) fn of(record: &mut Record, wanted: Wanted) -> Self {
        let now = Instant::now();
        let since = wanted.since;
        Self {
            version: record.version,
            instance: instance(record),
            clock: Clock {
                now,
                began: record.began,
                began_at: record.began_at,
            },
            limits: Limits {
                requests: record.requests.limit,
                failures: record.failures_limit,
            },
            counts: record.counts,
            requests_fallen_out: record.requests.fallen_out,
            dropped: record.dropped,
            unfinished: unfinished(record),
            requests: requests(record, wanted),
            failures: record
                .failures
                .iter()
                .rev()
                .filter(|failure| failure.has_changed_since(since))
                .cloned()
                .collect(),
            names: names(record, since, now),
        }
    }
}

pub(super) fn instance(record: &Record) -> u128 {
    let age = record.began_at.duration_since(SystemTime::UNIX_EPOCH);
    age.map_or(0, |age| age.as_micros())
}

fn unfinished(record: &Record) -> Vec<Unfinished> {
    let mut all: Vec<_> = record
        .requests
        .all()
        .iter()
        .filter(|request| request.is_unfinished())
        .flat_map(|request| {
            let callbacks = request.callbacks().iter();
            let unfinished = callbacks.filter(|callback| callback.ended.is_none());
            unfinished.map(move |callback| (request, callback))
        })
        .collect();
    all.sort_by_key(|(_, callback)| (callback.started.is_none(), callback.registered));
    all.truncate(UNFINISHED);
    all.into_iter()
        .map(|(request, callback)| Unfinished {
            id: callback.id,
            name: callback.name.clone(),
            place: callback.place,
            phase: callback.phase.label(),
            registered: callback.registered,
            started: callback.started,
            request: request.number,
            label: request.label(),
            route: request.route_or_path().to_owned(),
            is_over: request.completion.is_some(),
        })
        .collect()
}

fn requests(record: &Record, wanted: Wanted) -> Vec<Request> {
    let mut all: Vec<_> = record
        .requests
        .all()
        .iter()
        .filter(|request| request.has_changed_since(wanted.since))
        .collect();
    all.sort_by_key(|request| std::cmp::Reverse(request.number));
    all.truncate(wanted.requests);
    all.into_iter().cloned().collect()
}

/// The bars of those that did not change move on by themselves, so those are told now and then.
fn names(record: &mut Record, since: u64, now: Instant) -> Vec<Name> {
    const PERCENTILES: [u64; 3] = [50, 95, 99];
    let bar = record.bar_of(now);
    let has_moved = now.saturating_duration_since(record.began).as_millis()
        % (u128::from(BAR_SECONDS) * 1000)
        < 1000;
    record
        .names
        .all
        .iter()
        .enumerate()
        .filter(|(_, name)| name.ran + name.did_not_run > 0)
        .filter(|(_, name)| since == 0 || name.changed > since || has_moved)
        .map(|(key, name)| Name {
            key,
            label: name.label.clone(),
            is_named: name.is_named,
            place: name.place,
            ran: name.ran,
            failed: name.failed,
            did_not_run: name.did_not_run,
            waited: PERCENTILES.map(|percent| name.waited.percentile(percent)),
            took: PERCENTILES.map(|percent| name.took.percentile(percent)),
            bars: name.recent.bars(bar),
        })
        .collect()
}

//! The record: counts, statistics by name, and the last requests and failures.

use std::{collections::VecDeque, sync::Arc, time::SystemTime};

use tokio::time::Instant;

use crate::{
    event::{CallbackData, EndEvent, Event, EventKind, ScopeEnd, Times},
    names::Names,
    outcome::Outcome,
    request::CallbackRecord,
    requests::Requests,
    sparkline::BAR_SECONDS,
};

#[derive(Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) requests: usize,
    pub(crate) failures: usize,
    pub(crate) names: usize,
}

/// The counts since the start of the record.
#[derive(Clone, Copy, Default)]
pub(crate) struct Counts {
    pub(crate) registered: u64,
    pub(crate) started: u64,
    pub(crate) ok: u64,
    pub(crate) failed: u64,
    pub(crate) lost: u64,
    pub(crate) did_not_run: u64,
    pub(crate) ended_after_start: u64,
    pub(crate) failures_evicted: u64,
    pub(crate) callbacks_not_recorded: u64,
    pub(crate) events_dropped: u64,
}

impl Counts {
    pub(crate) fn running(&self) -> u64 {
        self.started.saturating_sub(self.ended_after_start)
    }

    pub(crate) fn pending(&self) -> u64 {
        let ended = self.ok + self.failed + self.lost + self.did_not_run;
        let unfinished = self.registered.saturating_sub(ended);
        unfinished.saturating_sub(self.running())
    }
}

#[derive(Clone)]
pub(crate) struct Failure {
    pub(crate) number: u64,
    pub(crate) callback: CallbackRecord,
    pub(crate) outcome: Outcome,
    pub(crate) at: Instant,
    pub(crate) text: Arc<str>,
    pub(crate) times: Option<Times>,
    pub(crate) scope: u64,
    pub(crate) request: Arc<str>,
    pub(crate) route: Arc<str>,
    /// The version of the record when it was added.
    pub(crate) added: u64,
}

pub(crate) struct Record {
    pub(crate) created: Instant,
    pub(crate) created_at: SystemTime,
    pub(crate) counts: Counts,
    pub(crate) names: Names,
    pub(crate) requests: Requests,
    pub(crate) failures: VecDeque<Failure>,
    pub(crate) max_failures: usize,
    /// Increases with each event.
    pub(crate) version: u64,
}

impl Record {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            created: Instant::now(),
            created_at: SystemTime::now(),
            counts: Counts::default(),
            names: Names::new(limits.names),
            requests: Requests::new(limits.requests),
            failures: VecDeque::new(),
            max_failures: limits.failures,
            version: 0,
        }
    }

    pub(crate) fn apply(&mut self, event: Event<'_>) {
        self.version += 1;
        match event {
            Event::Callback(callback, at, EventKind::Registered) => self.registered(&callback, at),
            Event::Callback(callback, at, EventKind::Started) => self.started(&callback, at),
            Event::Callback(callback, at, EventKind::Ended(end)) => self.ended(&callback, at, &end),
            Event::Completed(end) => self.completed(&end),
        }
    }

    fn registered(&mut self, callback: &CallbackData<'_>, at: Instant) {
        self.counts.registered += 1;
        let stats = self.names.index(callback);
        let events_were_dropped = self.counts.events_dropped > 0;
        let request = self
            .requests
            .get_or_insert(callback, at, events_were_dropped);
        let is_recorded = request.is_some_and(|request| {
            request.changed = self.version;
            request.time_to_head = callback.time_to_head;
            let name = self.names.shared_name(stats, callback);
            request.register(CallbackRecord::new(callback, name, stats, at))
        });
        self.counts.callbacks_not_recorded += u64::from(!is_recorded);
    }

    fn completed(&mut self, end: &ScopeEnd) {
        if let Some(request) = self.requests.get_mut(end.scope) {
            request.time_to_head = end.time_to_head;
            request.completion = Some(end.completion.clone());
            request.changed = self.version;
        }
    }

    fn started(&mut self, callback: &CallbackData<'_>, at: Instant) {
        self.counts.started += 1;
        if let Some(request) = self.requests.get_mut(callback.scope) {
            request.changed = self.version;
            if let Some(recorded) = request.callback_mut(callback.id) {
                recorded.started_at = Some(at);
            }
        }
    }

    fn ended(&mut self, callback: &CallbackData<'_>, at: Instant, end: &EndEvent) {
        match end.outcome {
            Outcome::Ok => self.counts.ok += 1,
            Outcome::Lost => self.counts.lost += 1,
            outcome if outcome.is_failure() => self.counts.failed += 1,
            _ => self.counts.did_not_run += 1,
        }
        let bar = self.bar(at);
        let unrecorded;
        let recorded = self.requests.end(callback, end.outcome, at, self.version);
        let recorded = match recorded {
            Some(recorded) => recorded,
            None => {
                unrecorded = unrecorded_end(&mut self.names, callback, at, end);
                &unrecorded
            }
        };
        self.counts.ended_after_start += u64::from(recorded.started_at.is_some());
        self.names.ended(recorded.stats, end, bar, self.version);
        if !end.outcome.is_failure() {
            return;
        }
        self.failures.push_back(Failure {
            number: self.counts.failed + self.counts.lost,
            callback: recorded.clone(),
            outcome: end.outcome,
            at,
            text: end.text.as_str().into(),
            times: end.times,
            scope: callback.scope,
            request: callback.request.label().into(),
            route: callback.request.route_or_path().into(),
            added: self.version,
        });
        while self.failures.len() > self.max_failures {
            self.failures.pop_front();
            self.counts.failures_evicted += 1;
        }
    }

    /// Returns the number of the sparkline's bar at this time.
    pub(crate) fn bar(&self, at: Instant) -> u64 {
        at.saturating_duration_since(self.created).as_secs() / BAR_SECONDS
    }
}

/// Reconstructs a callback for which the record had no room.
fn unrecorded_end(
    names: &mut Names,
    callback: &CallbackData<'_>,
    at: Instant,
    end: &EndEvent,
) -> CallbackRecord {
    let stats = names.index(callback);
    let name = names.shared_name(stats, callback);
    let mut recorded = CallbackRecord::new(callback, name, stats, at);
    // Both times are zero if the callback's rule panicked before it started.
    let times = end.times;
    let times = times.filter(|times| !(times.queued + times.duration).is_zero());
    recorded.started_at = times.map(|times| at.checked_sub(times.duration).unwrap_or(at));
    recorded.ended = Some((at, end.outcome));
    recorded
}

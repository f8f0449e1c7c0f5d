//! The record: counts, statistics by name, and the last requests and failures.

use std::{collections::VecDeque, panic::Location, sync::Arc, time::SystemTime};

use axum_defer::Phase;
use tokio::time::Instant;

use crate::{
    event::{CallbackData, EndEvent, EventKind, QueuedEvent, RequestData, ScopeEnd, Times},
    names::Names,
    outcome::Outcome,
    request::{CallbackRecord, SCOPE_LABEL},
    requests::{BeforeEnd, Requests},
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
    pub(crate) at: Instant,
    pub(crate) name: Option<Arc<str>>,
    pub(crate) location: &'static Location<'static>,
    pub(crate) phase: Phase,
    pub(crate) outcome: Outcome,
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

    pub(crate) fn apply_queued(&mut self, event: QueuedEvent) {
        match event {
            QueuedEvent::Callback(callback, at, kind) => self.apply(&callback, at, kind),
            QueuedEvent::Completed(end) => self.completed(&end),
        }
    }

    pub(crate) fn apply(&mut self, callback: &CallbackData<'_>, at: Instant, kind: EventKind) {
        self.version += 1;
        match kind {
            EventKind::Registered => self.registered(callback, at),
            EventKind::Started => self.started(callback, at),
            EventKind::Ended(end) => self.ended(callback, at, &end),
        }
    }

    pub(crate) fn completed(&mut self, end: &ScopeEnd) {
        self.version += 1;
        if let Some(request) = self.requests.get_mut(end.scope) {
            request.time_to_head = end.time_to_head;
            request.completion = Some(end.completion);
            request.changed = self.version;
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
            request.register(CallbackRecord {
                id: callback.id,
                name: self.names.shared_name(stats, callback),
                location: callback.location,
                phase: callback.phase,
                registered_at: at,
                started_at: None,
                ended: None,
                stats,
            })
        });
        self.counts.callbacks_not_recorded += u64::from(!is_recorded);
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
        let before = self.requests.end(callback, end.outcome, at, self.version);
        let before = before.unwrap_or_else(|| BeforeEnd {
            stats: self.names.index(callback),
            // Both are zero if the callback's rule panicked.
            had_started: end
                .times
                .is_some_and(|times| !(times.queued + times.duration).is_zero()),
        });
        self.counts.ended_after_start += u64::from(before.had_started);
        let bar = self.bar(at);
        self.names.ended(before.stats, end, bar, self.version);
        if end.outcome.is_failure() {
            self.add_failure(callback, at, end, before.stats);
        }
    }

    /// Returns the number of the sparkline's bar at this time.
    pub(crate) fn bar(&self, at: Instant) -> u64 {
        at.saturating_duration_since(self.created).as_secs() / BAR_SECONDS
    }

    fn add_failure(
        &mut self,
        callback: &CallbackData<'_>,
        at: Instant,
        end: &EndEvent,
        stats: usize,
    ) {
        let request = callback.request.as_ref();
        let label = request.map_or_else(|| SCOPE_LABEL.to_owned(), RequestData::label);
        self.failures.push_back(Failure {
            number: self.counts.failed + self.counts.lost,
            at,
            name: self.names.shared_name(stats, callback),
            location: callback.location,
            phase: callback.phase,
            outcome: end.outcome,
            text: end.text.as_str().into(),
            times: end.times,
            scope: callback.scope,
            request: label.into(),
            route: request.map_or("", RequestData::route_or_path).into(),
            added: self.version,
        });
        while self.failures.len() > self.max_failures {
            self.failures.pop_front();
            self.counts.failures_evicted += 1;
        }
    }
}

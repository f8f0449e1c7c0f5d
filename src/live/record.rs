//! The record: the last requests and failures, in a bounded room.

use std::{
    collections::VecDeque,
    panic::Location,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

use super::{
    end::End,
    names::Names,
    recent::BAR_SECONDS,
    request::{METHOD_BYTES, PATH_BYTES, label},
    requests::{Known, Requests},
    text::cut,
    told::{Ending, Message, What},
};
use crate::{
    completion::Completion,
    observe::{callback_info::CallbackInfo, phase::Phase},
};

#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) requests: usize,
    pub(super) failures: usize,
}

/// What was told since the beginning.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) registered: u64,
    pub(super) started: u64,
    pub(super) ok: u64,
    pub(super) failed: u64,
    pub(super) lost: u64,
    pub(super) did_not_run: u64,
    /// Of those that ended, how many had started.
    pub(super) ended_after_start: u64,
    pub(super) failures_fallen_out: u64,
    /// Callbacks that there was no room for.
    pub(super) unrecorded: u64,
}

impl Counts {
    pub(super) fn running(&self) -> u64 {
        self.started.saturating_sub(self.ended_after_start)
    }

    pub(super) fn pending(&self) -> u64 {
        let ended = self.ok + self.failed + self.lost + self.did_not_run;
        let unfinished = self.registered.saturating_sub(ended);
        unfinished.saturating_sub(self.running())
    }
}

#[derive(Clone)]
pub(super) struct Failure {
    pub(super) key: u64,
    pub(super) at: Instant,
    pub(super) name: Option<Arc<str>>,
    pub(super) place: &'static Location<'static>,
    pub(super) phase: Phase,
    pub(super) end: End,
    pub(super) text: Arc<str>,
    pub(super) times: Option<(Duration, Duration)>,
    pub(super) request: u64,
    pub(super) label: Arc<str>,
    pub(super) route: Arc<str>,
    changed: u64,
}

pub(super) struct Record {
    pub(super) began: Instant,
    pub(super) began_at: SystemTime,
    pub(super) counts: Counts,
    pub(super) dropped: u64,
    pub(super) names: Names,
    pub(super) requests: Requests,
    pub(super) failures: VecDeque<Failure>,
    pub(super) failures_limit: usize,
    /// Goes up with each event.
    pub(super) version: u64,
    bar: Bar,
}

/// The bar of the sparklines in which callbacks end now.
struct Bar {
    number: u64,
    until: Instant,
}

impl Failure {
    pub(super) fn has_changed_since(&self, version: u64) -> bool {
        self.changed > version
    }
}

impl Record {
    pub(super) fn new(limits: Limits, names: usize) -> Self {
        let began = Instant::now();
        Self {
            began,
            began_at: SystemTime::now(),
            counts: Counts::default(),
            dropped: 0,
            names: Names::new(names),
            requests: Requests::new(limits.requests),
            failures: VecDeque::new(),
            failures_limit: limits.failures,
            version: 0,
            bar: Bar {
                number: 0,
                until: began,
            },
        }
    }

    /// What has waited.
    pub(super) fn apply(&mut self, message: Message) {
        match message {
            Message::Callback(owned, at, what) => {
                let callback = owned.info();
                match what {
                    What::Registered => self.registered(&callback, Some(at)),
                    What::Started(waited) => self.started(&callback, waited, Some(at)),
                    What::Ended(end, times, text) => {
                        let ending = Ending {
                            end,
                            times,
                            text: &text,
                        };
                        self.ended(&callback, &ending, Some(at));
                    }
                }
            }
            Message::Decided(number, answered, completion) => {
                self.decided(number, answered, &completion);
            }
        }
    }

    /// Of all events: what happens now was not put aside, and has no time that was looked at.
    #[inline]
    pub(super) fn registered(&mut self, callback: &CallbackInfo<'_>, at: Option<Instant>) {
        self.version += 1;
        self.counts.registered += 1;
        let by_name = self.names.index(callback.name, callback.location);
        let Some(scope) = callback.scope else { return };
        let at = at.unwrap_or_else(Instant::now);
        let Some(request) = self.requests.open(scope, at, self.dropped > 0) else {
            self.counts.unrecorded += 1;
            return;
        };
        request.changed = self.version;
        request.answered = scope.answered();
        let Some(recorded) = request.register(at) else {
            self.counts.unrecorded += 1;
            return;
        };
        recorded.id = callback.id;
        recorded.name = callback.name.map(|name| self.names.text(by_name, name));
        recorded.place = callback.location;
        recorded.phase = callback.phase;
        recorded.registered = at;
        recorded.started = None;
        recorded.ended = None;
        recorded.by_name = by_name;
    }

    #[inline]
    pub(super) fn completed(
        &mut self,
        number: u64,
        answered: Option<Duration>,
        completion: &Completion,
    ) {
        self.version += 1;
        if let Some(request) = self.requests.get_mut(number) {
            request.answered = answered;
            request.completion = Some(*completion);
            request.changed = self.version;
        }
    }

    #[inline]
    pub(super) fn started(
        &mut self,
        callback: &CallbackInfo<'_>,
        waited: Duration,
        at: Option<Instant>,
    ) {
        self.version += 1;
        self.counts.started += 1;
        if let Some(request) = self.requests.get_mut(callback.scope()) {
            request.changed = self.version;
            request.start(callback.id, waited, at);
        }
    }

    #[inline]
    pub(super) fn ended(
        &mut self,
        callback: &CallbackInfo<'_>,
        ending: &Ending<'_>,
        at: Option<Instant>,
    ) {
        self.version += 1;
        let Ending { end, times, text } = *ending;
        match end {
            End::Ok => self.counts.ok += 1,
            End::Lost => self.counts.lost += 1,
            _ if end.is_failure() => self.counts.failed += 1,
            _ => self.counts.did_not_run += 1,
        }
        let took = times.map(|(_, took)| took);
        let known = self
            .requests
            .end(callback, end, took, at, self.version)
            .unwrap_or_else(|| self.unrecorded(callback, times, at));
        self.counts.ended_after_start += u64::from(known.had_started);
        let bar = self.bar_of(known.at);
        self.names
            .ended(known.by_name, end, times, bar, self.version);
        if end.is_failure() {
            self.fail(callback, known.at, end, times, text, known.by_name);
        }
    }

    /// What is known of the end of a callback that there was no room for.
    #[cold]
    fn unrecorded(
        &mut self,
        callback: &CallbackInfo<'_>,
        times: Option<(Duration, Duration)>,
        at: Option<Instant>,
    ) -> Known {
        Known {
            by_name: self.names.index(callback.name, callback.location),
            // A predicate that panicked has no times; what was lost may have started or not.
            had_started: times.is_some_and(|(waited, took)| !(waited + took).is_zero()),
            at: at.unwrap_or_else(Instant::now),
        }
    }

    /// The bar of a sparkline that a moment belongs to.
    #[inline]
    pub(super) fn bar_of(&mut self, at: Instant) -> u64 {
        if at >= self.bar.until {
            self.next_bar(at);
        }
        self.bar.number
    }

    #[cold]
    fn next_bar(&mut self, at: Instant) {
        let number = at.saturating_duration_since(self.began).as_secs() / BAR_SECONDS;
        self.bar = Bar {
            number,
            until: self.began + Duration::from_secs((number + 1) * BAR_SECONDS),
        };
    }

    #[cold]
    fn fail(
        &mut self,
        callback: &CallbackInfo<'_>,
        at: Instant,
        end: End,
        times: Option<(Duration, Duration)>,
        text: &str,
        by_name: u32,
    ) {
        let request = callback.request();
        let path = request.map_or("", |request| cut(request.path(), PATH_BYTES));
        let label = label(request.map(|request| {
            let method = cut(request.method().as_str(), METHOD_BYTES);
            (method, path)
        }));
        let route = request.and_then(|request| request.route());
        let total = self.counts.failed + self.counts.lost;
        self.failures.push_back(Failure {
            key: total,
            at,
            name: callback.name.map(|name| self.names.text(by_name, name)),
            place: callback.location,
            phase: callback.phase,
            end,
            text: text.into(),
            times,
            request: callback.scope(),
            label: label.into(),
            route: cut(route.unwrap_or(path), PATH_BYTES).into(),
            changed: self.version,
        });
        while self.failures.len() > self.failures_limit {
            self.failures.pop_front();
            self.counts.failures_fallen_out += 1;
        }
    }
}

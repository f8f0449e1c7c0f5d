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
    names::{BAR_SECONDS, FastMap, Names},
    text::cut,
    told::{Ending, Message, What},
};
use crate::{
    completion::Completion,
    observe::{callback_info::CallbackInfo, phase::Phase, scope_info::ScopeInfo},
};

const PATH_BYTES: usize = 300;
const METHOD_BYTES: usize = 20;
const ID_BYTES: usize = 80;
/// Of one request; the rest is counted.
pub(super) const CALLBACKS: usize = 100;

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
    pub(super) requests_fallen_out: u64,
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

/// A request or other unit of work. Its texts are written over by the next one in its place.
#[derive(Clone)]
pub(super) struct Request {
    pub(super) number: u64,
    pub(super) is_request: bool,
    pub(super) method: String,
    pub(super) path: String,
    pub(super) route: String,
    pub(super) id: String,
    pub(super) arrived: Instant,
    pub(super) answered: Option<Duration>,
    pub(super) completion: Option<Completion>,
    pub(super) callbacks: Vec<Callback>,
    pub(super) more_callbacks: u64,
    unfinished: usize,
    is_queued: bool,
    changed: u64,
}

#[derive(Clone)]
pub(super) struct Callback {
    pub(super) id: u64,
    pub(super) name: Option<Arc<str>>,
    pub(super) place: &'static Location<'static>,
    pub(super) phase: Phase,
    pub(super) registered: Instant,
    pub(super) started: Option<Instant>,
    pub(super) ended: Option<(Instant, End)>,
    by_name: u32,
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
    pub(super) limits: Limits,
    pub(super) counts: Counts,
    pub(super) dropped: u64,
    pub(super) names: Names,
    pub(super) failures: VecDeque<Failure>,
    /// Goes up with each event.
    pub(super) version: u64,
    pub(super) requests: Vec<Request>,
    by_number: FastMap<u64, u32>,
    /// Those in which nothing is pending or running, in the order in which they may go.
    finished: VecDeque<u32>,
}

impl Request {
    fn new(at: Instant) -> Self {
        Self {
            number: 0,
            is_request: false,
            method: String::new(),
            path: String::new(),
            route: String::new(),
            id: String::new(),
            arrived: at,
            answered: None,
            completion: None,
            callbacks: Vec::new(),
            more_callbacks: 0,
            unfinished: 0,
            is_queued: false,
            changed: 0,
        }
    }

    fn begin(&mut self, scope: &ScopeInfo, at: Instant) {
        self.number = scope.number;
        self.arrived = scope.opened.unwrap_or(at);
        self.answered = None;
        self.completion = None;
        self.callbacks.clear();
        self.more_callbacks = 0;
        self.unfinished = 0;
        for text in [
            &mut self.method,
            &mut self.path,
            &mut self.route,
            &mut self.id,
        ] {
            text.clear();
        }
        self.is_request = scope.request.is_some();
        if let Some(request) = &scope.request {
            self.method
                .push_str(cut(request.method().as_str(), METHOD_BYTES));
            self.path.push_str(cut(request.path(), PATH_BYTES));
            self.route
                .push_str(cut(request.route().unwrap_or(""), PATH_BYTES));
            self.id.push_str(cut(request.id().unwrap_or(""), ID_BYTES));
        }
    }

    pub(super) fn label(&self) -> String {
        if self.is_request {
            format!("{} {}", self.method, self.path)
        } else {
            "a unit of work".to_owned()
        }
    }

    pub(super) fn route_or_path(&self) -> &str {
        if self.route.is_empty() {
            &self.path
        } else {
            &self.route
        }
    }

    pub(super) fn has_changed_since(&self, version: u64) -> bool {
        self.changed > version
    }

    pub(super) fn is_unfinished(&self) -> bool {
        self.unfinished > 0
    }
}

impl Failure {
    pub(super) fn has_changed_since(&self, version: u64) -> bool {
        self.changed > version
    }
}

impl Record {
    pub(super) fn new(limits: Limits, names: usize) -> Self {
        Self {
            began: Instant::now(),
            began_at: SystemTime::now(),
            limits,
            counts: Counts::default(),
            dropped: 0,
            names: Names::new(names),
            failures: VecDeque::new(),
            version: 0,
            requests: Vec::new(),
            by_number: FastMap::default(),
            finished: VecDeque::new(),
        }
    }

    /// What has waited.
    pub(super) fn apply(&mut self, message: Message) {
        match message {
            Message::Callback(owned, at, what) => self.callback(&owned.info(), at, what),
            Message::Decided(number, answered, completion) => {
                self.decided(number, answered, &completion);
            }
        }
    }

    pub(super) fn callback(&mut self, callback: &CallbackInfo<'_>, at: Instant, what: What) {
        self.version += 1;
        match what {
            What::Registered => {
                self.counts.registered += 1;
                self.register(callback, at);
            }
            What::Started => {
                self.counts.started += 1;
                if let Some((request, callback)) = self.find(callback) {
                    let version = self.version;
                    let request = &mut self.requests[request];
                    request.changed = version;
                    request.callbacks[callback].started = Some(at);
                }
            }
            What::Ended(ending) => self.end(callback, at, ending),
        }
    }

    pub(super) fn decided(
        &mut self,
        number: u64,
        answered: Option<Duration>,
        completion: &Completion,
    ) {
        self.version += 1;
        if let Some(&index) = self.by_number.get(&number) {
            let request = &mut self.requests[index as usize];
            request.answered = answered;
            request.completion = Some(*completion);
            request.changed = self.version;
        }
    }

    fn register(&mut self, callback: &CallbackInfo<'_>, at: Instant) {
        let by_name = self.names.index(callback.name, callback.location);
        let Some(scope) = callback.scope else { return };
        let Some(index) = self.request_of(scope, at) else {
            self.counts.unrecorded += 1;
            return;
        };
        let name = callback.name.map(|name| self.names.text(by_name, name));
        let request = &mut self.requests[index];
        request.changed = self.version;
        request.answered = scope.answered();
        if request.callbacks.len() >= CALLBACKS {
            request.more_callbacks += 1;
            self.counts.unrecorded += 1;
            return;
        }
        request.unfinished += 1;
        request.callbacks.push(Callback {
            id: callback.id,
            name,
            place: callback.location,
            phase: callback.phase,
            registered: at,
            started: None,
            ended: None,
            by_name,
        });
    }

    fn request_of(&mut self, scope: &ScopeInfo, at: Instant) -> Option<usize> {
        if let Some(&index) = self.by_number.get(&scope.number) {
            return Some(index as usize);
        }
        let index = if self.requests.len() < self.limits.requests {
            self.requests.push(Request::new(at));
            self.requests.len() - 1
        } else {
            let index = self.oldest()?;
            self.by_number.remove(&self.requests[index].number);
            self.counts.requests_fallen_out += 1;
            index
        };
        self.requests[index].begin(scope, at);
        self.by_number.insert(scope.number, index as u32);
        Some(index)
    }

    /// The request that makes room: one that is finished. While there is none, new ones are not
    /// recorded; unless events were dropped, so that some of these may be finished and not known to
    /// be.
    fn oldest(&mut self) -> Option<usize> {
        while let Some(index) = self.finished.pop_front() {
            let request = &mut self.requests[index as usize];
            request.is_queued = false;
            if request.unfinished == 0 {
                return Some(index as usize);
            }
        }
        if self.dropped == 0 {
            return None;
        }
        let numbers = self.requests.iter().enumerate();
        let oldest = numbers.min_by_key(|(_, request)| request.number);
        oldest.map(|(index, _)| index)
    }

    fn find(&self, callback: &CallbackInfo<'_>) -> Option<(usize, usize)> {
        let index = *self.by_number.get(&callback.scope?.number)? as usize;
        let callbacks = &self.requests[index].callbacks;
        let place = callbacks.iter().position(|other| other.id == callback.id);
        place.map(|place| (index, place))
    }

    fn end(&mut self, callback: &CallbackInfo<'_>, at: Instant, ending: Ending) {
        let Ending { end, times, text } = ending;
        match end {
            End::Ok => self.counts.ok += 1,
            End::Lost => self.counts.lost += 1,
            _ if end.is_failure() => self.counts.failed += 1,
            _ => self.counts.did_not_run += 1,
        }
        let found = self.find(callback);
        let (by_name, was_started) = match found {
            Some((request, place)) => {
                let recorded = &self.requests[request].callbacks[place];
                (recorded.by_name, recorded.started.is_some())
            }
            // A predicate that panicked has no times; what was lost may have started or not.
            None => (
                self.names.index(callback.name, callback.location),
                times.is_some_and(|(waited, took)| !(waited + took).is_zero()),
            ),
        };
        self.counts.ended_after_start += u64::from(was_started);
        let bar = self.bar_of(at);
        self.names.ended(by_name, end, times, bar, self.version);
        if end.is_failure() {
            self.fail(callback, at, end, times, &text, by_name);
        }
        let Some((index, place)) = found else { return };
        let request = &mut self.requests[index];
        request.changed = self.version;
        let recorded = &mut request.callbacks[place];
        if recorded.ended.replace((at, end)).is_some() {
            return;
        }
        request.unfinished -= 1;
        if request.unfinished == 0 && !request.is_queued {
            request.is_queued = true;
            self.finished.push_back(index as u32);
        }
    }

    /// The bar of a sparkline that a moment belongs to.
    pub(super) fn bar_of(&self, at: Instant) -> u64 {
        at.saturating_duration_since(self.began).as_secs() / BAR_SECONDS
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
        let label = match request {
            Some(request) => {
                let method = cut(request.method().as_str(), METHOD_BYTES);
                format!("{method} {path}")
            }
            None => "a unit of work".to_owned(),
        };
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
        while self.failures.len() > self.limits.failures {
            self.failures.pop_front();
            self.counts.failures_fallen_out += 1;
        }
    }
}

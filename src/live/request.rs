//! One request of the record, and its callbacks.

use std::{panic::Location, sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{end::End, text::cut};
use crate::{
    completion::Completion,
    observe::{
        phase::Phase,
        scope_info::{RequestInfo, ScopeInfo},
    },
};

pub(super) const METHOD_BYTES: usize = 20;
pub(super) const PATH_BYTES: usize = 300;
const ID_BYTES: usize = 80;
/// Of one request; the rest is counted.
const CALLBACKS: usize = 100;

/// Room that most requests get along with, so that nothing is allocated when one is written down.
const USUAL_TEXT_BYTES: usize = 128;
const USUAL_CALLBACKS: usize = 2;

/// A request or other unit of work. Its texts are written over by the next one in its place.
#[derive(Clone)]
pub(super) struct Request {
    pub(super) number: u64,
    pub(super) is_request: bool,
    texts: Texts,
    pub(super) arrived: Instant,
    pub(super) answered: Option<Duration>,
    pub(super) completion: Option<Completion>,
    /// Those that are recorded are the first; the others are places for more.
    callbacks: Vec<Callback>,
    recorded: usize,
    pub(super) more_callbacks: u64,
    pub(super) unfinished: usize,
    /// It is among those that may go.
    pub(super) is_queued: bool,
    pub(super) changed: u64,
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
    pub(super) by_name: u32,
}

/// All in one, one after the other, so that one piece of memory has room for them.
#[derive(Clone)]
struct Texts {
    all: String,
    ends: [u16; 4],
}

const METHOD: usize = 0;
const PATH: usize = 1;
const ROUTE: usize = 2;
const ID: usize = 3;

impl Texts {
    fn write(&mut self, request: Option<&RequestInfo>) {
        self.all.clear();
        self.ends = [0; 4];
        let Some(request) = request else { return };
        self.push(METHOD, request.method().as_str(), METHOD_BYTES);
        self.push(PATH, request.path(), PATH_BYTES);
        self.push(ROUTE, request.route().unwrap_or(""), PATH_BYTES);
        self.push(ID, request.id().unwrap_or(""), ID_BYTES);
    }

    #[inline]
    fn push(&mut self, which: usize, text: &str, bytes: usize) {
        if !text.is_empty() {
            self.all.push_str(cut(text, bytes));
        }
        // All of them have fewer bytes than that.
        self.ends[which] = self.all.len() as u16;
    }

    fn get(&self, which: usize) -> &str {
        let start = match which {
            0 => 0,
            _ => self.ends[which - 1],
        };
        let range = usize::from(start)..usize::from(self.ends[which]);
        self.all.get(range).unwrap_or("")
    }
}

/// What a request is called by its method and its path, and how work that is none.
pub(super) fn label(request: Option<(&str, &str)>) -> String {
    match request {
        Some((method, path)) => format!("{method} {path}"),
        None => "a unit of work".to_owned(),
    }
}

impl Callback {
    /// A place for a callback.
    fn empty(at: Instant) -> Self {
        Self {
            id: 0,
            name: None,
            place: Location::caller(),
            phase: Phase::After,
            registered: at,
            started: None,
            ended: None,
            by_name: 0,
        }
    }
}

impl Request {
    /// A place for a request.
    pub(super) fn empty(at: Instant) -> Self {
        Self {
            number: 0,
            is_request: false,
            texts: Texts {
                all: String::with_capacity(USUAL_TEXT_BYTES),
                ends: [0; 4],
            },
            arrived: at,
            answered: None,
            completion: None,
            callbacks: vec![Callback::empty(at); USUAL_CALLBACKS],
            recorded: 0,
            more_callbacks: 0,
            unfinished: 0,
            is_queued: false,
            changed: 0,
        }
    }

    pub(super) fn begin(&mut self, scope: &ScopeInfo) {
        self.number = scope.number;
        self.arrived = scope.opened;
        self.answered = None;
        self.completion = None;
        self.recorded = 0;
        self.more_callbacks = 0;
        self.unfinished = 0;
        self.is_request = scope.request.is_some();
        self.texts.write(scope.request.as_ref());
    }

    pub(super) fn callbacks(&self) -> &[Callback] {
        &self.callbacks[..self.recorded]
    }

    /// A place to write one more down in, unless there are too many.
    #[inline]
    pub(super) fn register(&mut self, at: Instant) -> Option<&mut Callback> {
        if self.recorded == self.callbacks.len() {
            if self.recorded >= CALLBACKS {
                self.more_callbacks += 1;
                return None;
            }
            self.callbacks.push(Callback::empty(at));
        }
        self.unfinished += 1;
        self.recorded += 1;
        self.callbacks.get_mut(self.recorded - 1)
    }

    #[inline]
    pub(super) fn callback(&mut self, id: u64) -> Option<&mut Callback> {
        let mut recorded = self.callbacks[..self.recorded].iter_mut();
        recorded.find(|callback| callback.id == id)
    }

    /// A callback starts that has waited for so long since it could have. Where it can be told from
    /// that when this is, the clock is not looked at.
    #[inline]
    pub(super) fn start(&mut self, id: u64, waited: Duration, at: Option<Instant>) {
        let decided = self.completion.map(|end| self.arrived + end.elapsed);
        let Some(callback) = self.callback(id) else {
            return;
        };
        // What was registered later could have started then, which is before observers were told.
        // What the response waits for could have before it was decided.
        let could_start = decided
            .filter(|decided| callback.phase == Phase::After && callback.registered <= *decided);
        let started = could_start.map(|decided| decided + waited);
        callback.started = started.or(at).or_else(|| Some(Instant::now()));
    }

    pub(super) fn method(&self) -> &str {
        self.texts.get(METHOD)
    }

    pub(super) fn path(&self) -> &str {
        self.texts.get(PATH)
    }

    /// Empty where there is none.
    pub(super) fn route(&self) -> &str {
        self.texts.get(ROUTE)
    }

    /// Empty where there is none.
    pub(super) fn id(&self) -> &str {
        self.texts.get(ID)
    }

    pub(super) fn label(&self) -> String {
        label(self.is_request.then(|| (self.method(), self.path())))
    }

    pub(super) fn route_or_path(&self) -> &str {
        match self.route() {
            "" => self.path(),
            route => route,
        }
    }

    pub(super) fn has_changed_since(&self, version: u64) -> bool {
        self.changed > version
    }

    pub(super) fn is_unfinished(&self) -> bool {
        self.unfinished > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::completion::{Delivery, Level};

    const MILLI: Duration = Duration::from_millis(1);

    /// When a callback started that had waited for 3 ms, of a request decided after 10 ms.
    fn start(phase: Phase, registered: Duration) -> Duration {
        let arrived = Instant::now();
        let mut request = Request::empty(arrived);
        request.completion = Some(Completion {
            status: None,
            success: true,
            delivery: Delivery::Complete,
            level: Level::HandedOff,
            bytes: 0,
            elapsed: 10 * MILLI,
        });
        let callback = request.register(arrived).unwrap();
        callback.id = 7;
        callback.phase = phase;
        callback.registered = arrived + registered;
        let now = arrived + 50 * MILLI;
        request.start(7, 3 * MILLI, Some(now));
        request.callbacks()[0].started.unwrap() - arrived
    }

    #[test]
    fn what_waited_for_the_end_of_the_response_started_so_long_after_it() {
        assert_eq!(start(Phase::After, MILLI), 13 * MILLI);
        assert_eq!(start(Phase::After, 10 * MILLI), 13 * MILLI);
    }

    #[test]
    fn for_what_waited_for_something_else_the_clock_is_looked_at() {
        assert_eq!(start(Phase::After, 11 * MILLI), 50 * MILLI);
        assert_eq!(start(Phase::Before, MILLI), 50 * MILLI);
    }
}

//! Observer events in the form that the record takes.

use std::{borrow::Cow, panic::Location, time::Duration};

use axum_defer::{CallbackInfo, Completion, Phase, RequestInfo};
use tokio::time::Instant;

use crate::{outcome::Outcome, truncate::truncate};

const MAX_NAME_BYTES: usize = 120;
const MAX_METHOD_BYTES: usize = 20;
const MAX_PATH_BYTES: usize = 300;
const MAX_REQUEST_ID_BYTES: usize = 80;

pub(crate) enum Event<'a> {
    Callback(CallbackData<'a>, Instant, EventKind),
    Completed(ScopeEnd),
}

/// An event that arrived while the record was locked.
pub(crate) type QueuedEvent = Box<Event<'static>>;

pub(crate) enum EventKind {
    Registered,
    Started,
    Ended(EndEvent),
}

pub(crate) struct EndEvent {
    pub(crate) outcome: Outcome,
    /// `None` if the callback did not run.
    pub(crate) times: Option<Times>,
    /// The error text of a failure.
    pub(crate) text: String,
}

#[derive(Clone, Copy)]
pub(crate) struct Times {
    pub(crate) queued: Duration,
    pub(crate) duration: Duration,
}

/// The end of a request or other scope.
pub(crate) struct ScopeEnd {
    pub(crate) scope: u64,
    pub(crate) time_to_head: Option<Duration>,
    pub(crate) completion: Completion,
}

/// The parts of a [`CallbackInfo`] that the record uses. All text is truncated.
pub(crate) struct CallbackData<'a> {
    pub(crate) id: u64,
    pub(crate) name: Option<Cow<'a, str>>,
    pub(crate) location: &'static Location<'static>,
    pub(crate) phase: Phase,
    pub(crate) scope: u64,
    pub(crate) started_at: Instant,
    pub(crate) time_to_head: Option<Duration>,
    pub(crate) request: RequestText<'a>,
}

/// A copy for the queue. It does not keep the memory of the request alive.
type OwnedCallback = CallbackData<'static>;

/// The text of a request. All fields are empty for scopes without a request.
#[derive(Clone, Default)]
pub(crate) struct RequestText<'a> {
    pub(crate) method: Cow<'a, str>,
    pub(crate) path: Cow<'a, str>,
    /// Empty if it is not known.
    pub(crate) route: Cow<'a, str>,
    /// Empty if it is not known.
    pub(crate) id: Cow<'a, str>,
}

impl Event<'_> {
    pub(crate) fn into_queued(self) -> QueuedEvent {
        Box::new(match self {
            Event::Callback(callback, at, kind) => Event::Callback(callback.into_owned(), at, kind),
            Event::Completed(end) => Event::Completed(end),
        })
    }
}

impl<'a> CallbackData<'a> {
    /// Returns `None` if the layer has no observer, which does not happen in an observer.
    pub(crate) fn new(callback: &CallbackInfo<'a>) -> Option<Self> {
        let scope = callback.scope_info()?;
        let request = scope.request().map(RequestText::new);
        Some(Self {
            id: callback.id(),
            name: callback.name().map(|name| truncated(name, MAX_NAME_BYTES)),
            location: callback.location(),
            phase: callback.phase(),
            scope: scope.id(),
            started_at: Instant::from_std(scope.started_at()),
            time_to_head: scope.time_to_head(),
            request: request.unwrap_or_default(),
        })
    }

    fn into_owned(self) -> OwnedCallback {
        let mut request = RequestText::default();
        request.copy_from(&self.request);
        CallbackData {
            id: self.id,
            name: self.name.map(|name| name.into_owned().into()),
            location: self.location,
            phase: self.phase,
            scope: self.scope,
            started_at: self.started_at,
            time_to_head: self.time_to_head,
            request,
        }
    }
}

impl<'a> RequestText<'a> {
    fn new(request: &'a RequestInfo) -> Self {
        Self {
            method: truncated(request.method().as_str(), MAX_METHOD_BYTES),
            path: truncated(request.path(), MAX_PATH_BYTES),
            route: truncated(request.route().unwrap_or(""), MAX_PATH_BYTES),
            id: truncated(request.id().unwrap_or(""), MAX_REQUEST_ID_BYTES),
        }
    }

    /// Copies the text into the memory that is already allocated, if there is enough of it.
    pub(crate) fn copy_from(&mut self, other: &RequestText<'_>) {
        for (to, from) in [
            (&mut self.method, &other.method),
            (&mut self.path, &other.path),
            (&mut self.route, &other.route),
            (&mut self.id, &other.id),
        ] {
            let to = to.to_mut();
            to.clear();
            to.push_str(from);
        }
    }

    pub(crate) fn is_request(&self) -> bool {
        !self.method.is_empty()
    }

    pub(crate) fn label(&self) -> String {
        if self.is_request() {
            format!("{} {}", self.method, self.path)
        } else {
            "scope".to_owned()
        }
    }

    pub(crate) fn route_or_path(&self) -> &str {
        if self.route.is_empty() {
            &self.path
        } else {
            &self.route
        }
    }
}

fn truncated(text: &str, max_bytes: usize) -> Cow<'_, str> {
    Cow::Borrowed(truncate(text, max_bytes))
}

//! Observer events in the form that the record takes.

use std::{borrow::Cow, panic::Location, time::Duration};

use axum_defer::{CallbackInfo, Completion, Phase, RequestInfo};
use tokio::time::Instant;

use crate::{outcome::Outcome, truncate::truncate};

pub(crate) const MAX_NAME_BYTES: usize = 120;
const MAX_METHOD_BYTES: usize = 20;
const MAX_PATH_BYTES: usize = 300;
const MAX_REQUEST_ID_BYTES: usize = 80;

/// The parts of a [`CallbackInfo`] that the record uses. All text is truncated.
pub(crate) struct CallbackData<'a> {
    pub(crate) id: u64,
    pub(crate) name: Option<Cow<'a, str>>,
    pub(crate) location: &'static Location<'static>,
    pub(crate) phase: Phase,
    pub(crate) scope: u64,
    pub(crate) started_at: Instant,
    pub(crate) time_to_head: Option<Duration>,
    pub(crate) request: Option<RequestData<'a>>,
}

/// The parts of a [`RequestInfo`] that the record uses, empty if there are none.
pub(crate) struct RequestData<'a> {
    pub(crate) method: Cow<'a, str>,
    pub(crate) path: Cow<'a, str>,
    pub(crate) route: Cow<'a, str>,
    pub(crate) id: Cow<'a, str>,
}

/// A copy for the queue. It does not keep the memory of the request alive.
pub(crate) type OwnedCallback = CallbackData<'static>;

impl<'a> CallbackData<'a> {
    /// Returns `None` if the layer has no observer, which does not happen in an observer.
    pub(crate) fn new(callback: &CallbackInfo<'a>) -> Option<Self> {
        let scope = callback.scope_info()?;
        Some(Self {
            id: callback.id(),
            name: callback.name().map(|name| truncated(name, MAX_NAME_BYTES)),
            location: callback.location(),
            phase: callback.phase(),
            scope: scope.number(),
            started_at: Instant::from_std(scope.arrived()),
            time_to_head: scope.answered(),
            request: scope.request().map(RequestData::new),
        })
    }

    fn into_owned(self) -> OwnedCallback {
        CallbackData {
            id: self.id,
            name: self.name.map(owned),
            location: self.location,
            phase: self.phase,
            scope: self.scope,
            started_at: self.started_at,
            time_to_head: self.time_to_head,
            request: self.request.map(|request| RequestData {
                method: owned(request.method),
                path: owned(request.path),
                route: owned(request.route),
                id: owned(request.id),
            }),
        }
    }
}

impl<'a> RequestData<'a> {
    pub(crate) fn label(&self) -> String {
        format!("{} {}", self.method, self.path)
    }

    pub(crate) fn route_or_path(&self) -> &str {
        if self.route.is_empty() {
            &self.path
        } else {
            &self.route
        }
    }

    fn new(request: &'a RequestInfo) -> Self {
        Self {
            method: truncated(request.method().as_str(), MAX_METHOD_BYTES),
            path: truncated(request.path(), MAX_PATH_BYTES),
            route: truncated(request.route().unwrap_or(""), MAX_PATH_BYTES),
            id: truncated(request.id().unwrap_or(""), MAX_REQUEST_ID_BYTES),
        }
    }
}

fn truncated(text: &str, max_bytes: usize) -> Cow<'_, str> {
    Cow::Borrowed(truncate(text, max_bytes))
}

fn owned(text: Cow<'_, str>) -> Cow<'static, str> {
    Cow::Owned(text.into_owned())
}

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

/// An event that arrived while the record was locked.
pub(crate) enum QueuedEvent {
    Callback(Box<OwnedCallback>, Instant, EventKind),
    Completed(ScopeEnd),
}

impl QueuedEvent {
    pub(crate) fn new(callback: CallbackData<'_>, at: Instant, kind: EventKind) -> Self {
        Self::Callback(Box::new(callback.into_owned()), at, kind)
    }
}

/// The end of a request or other scope.
#[derive(Clone, Copy)]
pub(crate) struct ScopeEnd {
    pub(crate) scope: u64,
    pub(crate) time_to_head: Option<Duration>,
    pub(crate) completion: Completion,
}

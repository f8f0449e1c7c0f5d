//! A recorded request or other scope, with its callbacks.

use std::{panic::Location, sync::Arc, time::Duration};

use axum_defer::{Completion, Phase};
use tokio::time::Instant;

use crate::{
    event::{CallbackData, RequestText},
    outcome::Outcome,
};

/// The number of callbacks that are recorded per request. The others are counted.
const MAX_CALLBACKS: usize = 100;

/// A slot for a request. Slots are reused. Their capacity is enough for most requests, so that recording
/// rarely allocates.
#[derive(Clone)]
pub(crate) struct RequestRecord {
    pub(crate) scope: u64,
    pub(crate) text: RequestText<'static>,
    pub(crate) started_at: Instant,
    pub(crate) time_to_head: Option<Duration>,
    pub(crate) completion: Option<Completion>,
    pub(crate) callbacks: Vec<CallbackRecord>,
    pub(crate) callbacks_not_recorded: u64,
    pub(crate) unfinished: usize,
    /// `true` if the slot is in the queue of finished requests.
    pub(crate) is_queued: bool,
    /// The version of the record at the last change.
    pub(crate) changed: u64,
}

#[derive(Clone)]
pub(crate) struct CallbackRecord {
    pub(crate) id: u64,
    pub(crate) name: Option<Arc<str>>,
    pub(crate) location: &'static Location<'static>,
    pub(crate) phase: Phase,
    pub(crate) registered_at: Instant,
    pub(crate) started_at: Option<Instant>,
    pub(crate) ended: Option<(Instant, Outcome)>,
    /// The index of its entry in the statistics by name.
    pub(crate) stats: usize,
}

impl RequestRecord {
    /// Returns an unused slot.
    pub(crate) fn unused(now: Instant) -> Self {
        Self {
            scope: 0,
            text: RequestText {
                method: String::with_capacity(8).into(),
                path: String::with_capacity(64).into(),
                route: String::with_capacity(32).into(),
                id: String::with_capacity(36).into(),
            },
            started_at: now,
            time_to_head: None,
            completion: None,
            callbacks: Vec::with_capacity(2),
            callbacks_not_recorded: 0,
            unfinished: 0,
            is_queued: false,
            changed: 0,
        }
    }

    /// Reuses the slot for the scope of this callback.
    pub(crate) fn reset(&mut self, callback: &CallbackData<'_>) {
        self.scope = callback.scope;
        self.started_at = callback.started_at;
        self.time_to_head = None;
        self.completion = None;
        self.callbacks.clear();
        self.callbacks_not_recorded = 0;
        self.unfinished = 0;
        self.text.copy_from(&callback.request);
    }

    /// Adds a callback. Returns `false`, and counts it, if there are too many.
    pub(crate) fn register(&mut self, callback: CallbackRecord) -> bool {
        let has_room = self.callbacks.len() < MAX_CALLBACKS;
        if has_room {
            self.callbacks.push(callback);
            self.unfinished += 1;
        } else {
            self.callbacks_not_recorded += 1;
        }
        has_room
    }

    pub(crate) fn callback_mut(&mut self, id: u64) -> Option<&mut CallbackRecord> {
        self.callbacks.iter_mut().find(|callback| callback.id == id)
    }

    pub(crate) fn is_unfinished(&self) -> bool {
        self.unfinished > 0
    }
}

impl CallbackRecord {
    pub(crate) fn new(
        callback: &CallbackData<'_>,
        name: Option<Arc<str>>,
        stats: usize,
        registered_at: Instant,
    ) -> Self {
        Self {
            id: callback.id,
            name,
            location: callback.location,
            phase: callback.phase,
            registered_at,
            started_at: None,
            ended: None,
            stats,
        }
    }

    /// Returns the label of the outcome, or of the state before the end.
    pub(crate) fn state(&self) -> &'static str {
        match (self.ended, self.started_at) {
            (Some((_, outcome)), _) => outcome.label(),
            (None, Some(_)) => "running",
            (None, None) => "pending",
        }
    }

    pub(crate) fn ended_at(&self) -> Option<Instant> {
        self.ended.map(|(at, _)| at)
    }

    pub(crate) fn is_failure(&self) -> bool {
        self.ended.is_some_and(|(_, outcome)| outcome.is_failure())
    }
}

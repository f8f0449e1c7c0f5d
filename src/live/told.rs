//! Events, as they wait for the record.

use std::{panic::Location, time::Duration};

use tokio::time::Instant;

use super::{end::End, names::NAME_BYTES, text::cut};
use crate::{
    completion::Completion,
    observe::{callback_info::CallbackInfo, phase::Phase, scope_info::ScopeInfo},
};

/// How a callback ended.
#[derive(Clone, Copy)]
pub(super) struct Ending<'a> {
    pub(super) end: End,
    /// How long it waited and ran, if it did.
    pub(super) times: Option<(Duration, Duration)>,
    /// What it failed with.
    pub(super) text: &'a str,
}

impl Ending<'_> {
    pub(super) fn without_run(end: End) -> Self {
        Self {
            end,
            times: None,
            text: "",
        }
    }
}

/// What happened to a callback.
pub(super) enum What {
    Registered,
    Started(Duration),
    Ended(End, Option<(Duration, Duration)>, Box<str>),
}

pub(super) enum Message {
    Callback(Box<Owned>, Instant, What),
    Decided(u64, Option<Duration>, Completion),
}

impl Message {
    /// What happens now.
    #[cold]
    pub(super) fn of(callback: &CallbackInfo<'_>, what: What) -> Self {
        Self::Callback(Owned::of(callback), Instant::now(), what)
    }
}

/// A [`CallbackInfo`] that can wait.
pub(super) struct Owned {
    id: u64,
    name: Option<Box<str>>,
    location: &'static Location<'static>,
    phase: Phase,
    scope: Option<ScopeInfo>,
}

impl Owned {
    fn of(callback: &CallbackInfo<'_>) -> Box<Self> {
        Box::new(Self {
            id: callback.id,
            name: callback.name.map(|name| cut(name, NAME_BYTES).into()),
            location: callback.location,
            phase: callback.phase,
            scope: callback.scope.cloned(),
        })
    }

    pub(super) fn info(&self) -> CallbackInfo<'_> {
        CallbackInfo {
            id: self.id,
            name: self.name.as_deref(),
            location: self.location,
            phase: self.phase,
            scope: self.scope.as_ref(),
            #[cfg(feature = "tracing")]
            span: None,
        }
    }
}

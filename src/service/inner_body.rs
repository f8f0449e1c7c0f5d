//! The body inside a [`ResponseBody`](super::body::ResponseBody).

use std::{pin::Pin, time::Duration};

use pin_project_lite::pin_project;

use super::watch::Watch;
use crate::scope::Scope;

pin_project! {
    /// The wrapped body.
    #[project = InnerProjection]
    pub(super) enum Inner<B> {
        Pinned {
            #[pin]
            body: B,
        },
        /// With `finish_body`.
        Movable { movable: Option<Movable<B>> },
        /// There is no body, or it was dropped inside the scope before that is decided.
        None,
    }
}

/// A body that can be moved to a task when its response is dropped.
pub(super) struct Movable<B> {
    pub(super) body: Pin<Box<B>>,
    pub(super) limit: Duration,
    /// Drives the body to its end. A pointer, because a destructor can have no bounds of its own.
    pub(super) finish: fn(Self, Watch, &Scope),
}

impl<B> Movable<B> {
    pub(super) fn new(body: B, limit: Duration, finish: fn(Self, Watch, &Scope)) -> Self {
        Self {
            body: Box::pin(body),
            limit,
            finish,
        }
    }
}

impl<B> Inner<B> {
    pub(super) fn get(&self) -> Option<&B> {
        match self {
            Self::Pinned { body } => Some(body),
            Self::Movable { movable } => movable.as_ref().map(|movable| &*movable.body),
            Self::None => None,
        }
    }

    #[inline]
    pub(super) fn get_pin(self: Pin<&mut Self>) -> Option<Pin<&mut B>> {
        match self.project() {
            InnerProjection::Pinned { body } => Some(body),
            InnerProjection::Movable { movable } => {
                movable.as_mut().map(|movable| movable.body.as_mut())
            }
            InnerProjection::None => None,
        }
    }

    pub(super) fn take_movable(self: Pin<&mut Self>) -> Option<Movable<B>> {
        match self.project() {
            InnerProjection::Movable { movable } => movable.take(),
            InnerProjection::Pinned { .. } | InnerProjection::None => None,
        }
    }

    pub(super) fn set_movable(self: Pin<&mut Self>, body: Movable<B>) {
        if let InnerProjection::Movable { movable } = self.project() {
            *movable = Some(body);
        }
    }
}

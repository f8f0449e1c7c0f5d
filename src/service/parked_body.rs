//! Bodies of HTTP/2 responses between two polls.
//!
//! hyper does not poll the body of a stream whose client opens no window. So the right to decide the
//! scope is parked after each frame, where the connection can take it if the stream stalls.

use std::{pin::Pin, sync::Arc};

use super::{
    inner_body::{Inner, Movable},
    watch::Watch,
};
use crate::{
    scope::Scope,
    sent::response::{OnStall, ResponseHandle},
    sync::{Mutex, lock},
};

/// The parking of one body.
pub(super) enum Parking<B> {
    Never,
    /// Contains a pointer, because only the constructor of the body knows all bounds.
    Possible(fn(&ResponseHandle) -> Arc<Parked<B>>),
    Used(Arc<Parked<B>>),
}

/// The state of a body between two polls.
pub(super) struct Parked<B>(Mutex<State<B>>);

enum State<B> {
    /// The body is polled.
    Empty,
    Waiting {
        watch: Watch,
        movable: Option<Movable<B>>,
    },
    /// The scope is decided, because the stream has stalled.
    Stalled { scope: Arc<Scope>, is_moved: bool },
}

/// The result of [`Parking::unpark`].
pub(super) enum Unparked {
    Here,
    /// The stream has stalled, and a task drives the body to its end.
    Moved,
}

impl<B> Parking<B> {
    pub(super) fn new(is_multiplexed: bool) -> Self
    where
        B: Send + 'static,
    {
        match is_multiplexed {
            true => Self::Possible(|response| {
                let parked = Arc::new(Parked(Mutex::new(State::Empty)));
                response.on_stall(parked.clone());
                parked
            }),
            false => Self::Never,
        }
    }

    /// Returns `true` if the body was parked.
    pub(super) fn is_used(&self) -> bool {
        matches!(self, Self::Used(_))
    }

    /// Parks the body after a frame, if its scope is not decided.
    pub(super) fn park(&mut self, inner: Pin<&mut Inner<B>>, watch: &mut Watch) {
        let Some(scope) = watch.guard.as_ref().and_then(|guard| guard.scope()) else {
            return;
        };
        if let (Self::Possible(prepare), Some(response)) = (&self, &scope.response) {
            *self = Self::Used(prepare(response));
        }
        if let Self::Used(parked) = self {
            *lock(&parked.0) = State::Waiting {
                watch: std::mem::take(watch),
                movable: inner.take_movable(),
            };
        }
    }

    /// Returns the body to its response.
    pub(super) fn unpark(&self, inner: Pin<&mut Inner<B>>, watch: &mut Watch) -> Unparked {
        let Self::Used(parked) = self else {
            return Unparked::Here;
        };
        let state = std::mem::replace(&mut *lock(&parked.0), State::Empty);
        match state {
            State::Empty => {}
            State::Waiting {
                watch: waiting,
                movable,
            } => {
                *watch = waiting;
                if let Some(movable) = movable {
                    inner.set_movable(movable);
                }
            }
            State::Stalled { scope, is_moved } => {
                watch.late_scope = Some(scope);
                watch.is_moved = is_moved;
            }
        }
        match watch.is_moved {
            true => Unparked::Moved,
            false => Unparked::Here,
        }
    }
}

impl<B: Send> OnStall for Parked<B> {
    fn stalled(&self) -> bool {
        let mut state = lock(&self.0);
        let State::Waiting { watch, movable } = &*state else {
            return false;
        };
        let Some(scope) = watch
            .guard
            .as_ref()
            .and_then(|guard| guard.scope())
            .cloned()
        else {
            return false;
        };
        let stalled = State::Stalled {
            scope: scope.clone(),
            is_moved: movable.is_some(),
        };
        let waiting = std::mem::replace(&mut *state, stalled);
        drop(state);
        if let State::Waiting { mut watch, movable } = waiting {
            watch.is_abandoned = true;
            match movable {
                Some(movable) => (movable.finish)(movable, watch, &scope),
                None => drop(watch),
            }
        }
        true
    }
}

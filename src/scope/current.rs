//! The scope that the running code belongs to.

use std::{cell::Cell, marker::PhantomData, mem::ManuallyDrop, sync::Arc};

use crate::scope::Scope;

thread_local! {
    /// Without a destructor, so that no look has to ask first whether that has run. Nothing is left
    /// in it when a thread ends: whoever enters leaves.
    static CURRENT: Cell<ManuallyDrop<Option<Current>>> =
        const { Cell::new(ManuallyDrop::new(None)) };
}

/// A scope, and how code belongs to it.
#[derive(Clone)]
pub(crate) struct Current {
    pub(crate) scope: Arc<Scope>,
    pub(crate) is_driven: bool,
}

impl Current {
    /// For code that the scope drives: the handler, the body, and later the callbacks. Its runner
    /// is not at work meanwhile.
    #[inline]
    pub(crate) fn driven(scope: Arc<Scope>) -> Self {
        Self {
            scope,
            is_driven: true,
        }
    }

    /// For code beside which the runner may be at work.
    pub(crate) fn beside(scope: Arc<Scope>) -> Self {
        Self {
            scope,
            is_driven: false,
        }
    }

    /// For this code, as it deals with a scope that it need not belong to.
    pub(crate) fn as_seen_here(scope: Arc<Scope>) -> Self {
        let is_driven = look(|current| current.is_driven && Arc::ptr_eq(&current.scope, &scope));
        Self {
            is_driven: is_driven.unwrap_or(false),
            scope,
        }
    }
}

/// Code belongs to the scope until the guard is dropped; then to the one that it belonged to
/// before.
///
/// A guard rather than a closure: requests and responses would be moved through the closure.
#[must_use = "code belongs to the scope while the guard lives"]
pub(crate) struct Entered<'a> {
    /// Where the scope came from and goes back to; meanwhile, the one from before is here.
    place: &'a mut Option<Current>,
    /// It must be dropped on the thread on which it was made.
    not_send: PhantomData<*const ()>,
}

/// Enters the scope in this place, which is there again when the guard is dropped.
#[inline]
pub(crate) fn enter(place: &mut Option<Current>) -> Entered<'_> {
    swap(place);
    Entered {
        place,
        not_send: PhantomData,
    }
}

impl Drop for Entered<'_> {
    #[inline]
    fn drop(&mut self) {
        swap(self.place);
    }
}

/// The scope that this code runs in.
#[inline]
pub(crate) fn get() -> Option<Current> {
    look(Current::clone)
}

/// Carries the current scope into a closure that runs on another thread.
pub(crate) fn carry<T>(closure: impl FnOnce() -> T) -> impl FnOnce() -> T {
    let mut carried = get().map(|current| Current::beside(current.scope));
    move || {
        let _entered = enter(&mut carried);
        closure()
    }
}

#[inline]
fn look<T>(look: impl FnOnce(&Current) -> T) -> Option<T> {
    let mut place = None;
    let entered = enter(&mut place);
    entered.place.as_ref().map(look)
}

#[cfg(not(all(test, axum_defer_loom)))]
#[inline]
fn swap(place: &mut Option<Current>) {
    let entering = ManuallyDrop::new(place.take());
    *place = ManuallyDrop::into_inner(CURRENT.replace(entering));
}

/// All threads of a model share one thread of the operating system, and with it what is local to
/// it; the models use collections instead.
#[cfg(all(test, axum_defer_loom))]
fn swap(_: &mut Option<Current>) {}

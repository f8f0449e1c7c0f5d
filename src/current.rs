//! The scope that the running code belongs to.

use std::{cell::Cell, marker::PhantomData, sync::Arc};

use crate::scope::Scope;

thread_local! {
    static CURRENT: Cell<Option<Current>> = const { Cell::new(None) };
}

struct Current {
    scope: Arc<Scope>,
    /// This is a poll of what the scope itself drives, so its runner is not at work meanwhile.
    is_driven: bool,
}

/// Code belongs to the scope until the guard is dropped; then to the one that it belonged to
/// before.
///
/// A guard rather than a closure: requests and responses would be moved through the closure.
#[must_use = "code belongs to the scope while the guard lives"]
pub(crate) struct Entered {
    outer: Option<Current>,
    /// It must be dropped on the thread on which it was made.
    not_send: PhantomData<*const ()>,
}

/// For code that the scope drives: the handler, the body, and later the callbacks.
pub(crate) fn enter(scope: &Arc<Scope>) -> Entered {
    entered(scope, true)
}

/// For code beside which the runner may be at work.
pub(crate) fn enter_beside(scope: &Arc<Scope>) -> Entered {
    entered(scope, false)
}

fn entered(scope: &Arc<Scope>, is_driven: bool) -> Entered {
    let scope = scope.clone();
    Entered {
        outer: replace(Some(Current { scope, is_driven })),
        not_send: PhantomData,
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        replace(self.outer.take());
    }
}

/// The scope that this code runs in.
pub(crate) fn get() -> Option<Arc<Scope>> {
    look(|current| current.scope.clone())
}

/// Whether this code is driven by the scope, so that its runner is not at work meanwhile.
pub(crate) fn is_driven_by(scope: &Arc<Scope>) -> bool {
    look(|current| current.is_driven && Arc::ptr_eq(&current.scope, scope)).unwrap_or(false)
}

/// Carries the current scope into a closure that runs on another thread.
pub(crate) fn carry<T>(closure: impl FnOnce() -> T) -> impl FnOnce() -> T {
    let scope = get();
    move || {
        let _entered = scope.as_ref().map(enter_beside);
        closure()
    }
}

fn look<T>(look: impl FnOnce(&Current) -> T) -> Option<T> {
    let current = replace(None)?;
    let seen = look(&current);
    replace(Some(current));
    Some(seen)
}

/// A thread that is about to end has no scope any more.
#[cfg(not(all(test, axum_defer_loom)))]
fn replace(current: Option<Current>) -> Option<Current> {
    CURRENT
        .try_with(|place| place.replace(current))
        .ok()
        .flatten()
}

/// All threads of a model share one thread of the operating system, and with it what is local to
/// it; the models use collections instead.
#[cfg(all(test, axum_defer_loom))]
fn replace(_: Option<Current>) -> Option<Current> {
    None
}

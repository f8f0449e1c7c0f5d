//! The scope that the running code belongs to.

use std::{cell::Cell, marker::PhantomData, sync::Arc};

use crate::scope::Scope;

thread_local! {
    static CURRENT: Cell<Option<Arc<Scope>>> = const { Cell::new(None) };
}

/// Code belongs to the scope until the guard is dropped; then to the one that it belonged to
/// before.
///
/// A guard rather than a closure: requests and responses would be moved through the closure.
#[must_use = "code belongs to the scope while the guard lives"]
pub(crate) struct Entered {
    outer: Option<Arc<Scope>>,
    /// It must be dropped on the thread on which it was made.
    not_send: PhantomData<*const ()>,
}

pub(crate) fn enter(scope: &Arc<Scope>) -> Entered {
    Entered {
        outer: replace(Some(scope.clone())),
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
    let scope = replace(None)?;
    replace(Some(scope.clone()));
    Some(scope)
}

/// Carries the current scope into a closure that runs on another thread.
pub(crate) fn carry<T>(closure: impl FnOnce() -> T) -> impl FnOnce() -> T {
    let scope = get();
    move || {
        let _entered = scope.as_ref().map(enter);
        closure()
    }
}

/// A thread that is about to end has no scope any more.
#[cfg(not(all(test, axum_defer_loom)))]
fn replace(scope: Option<Arc<Scope>>) -> Option<Arc<Scope>> {
    CURRENT
        .try_with(|current| current.replace(scope))
        .ok()
        .flatten()
}

/// All threads of a model share one thread of the operating system, and with it what is local to
/// it; the models use collections instead.
#[cfg(all(test, axum_defer_loom))]
fn replace(_: Option<Arc<Scope>>) -> Option<Arc<Scope>> {
    None
}

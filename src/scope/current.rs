//! The scope of the running code.

use std::{cell::Cell, marker::PhantomData, mem::ManuallyDrop, sync::Arc};

use super::{Current, Role, Scope};

thread_local! {
    /// Has no destructor, so that an access need not check whether it has run. Every guard restores
    /// the previous value, so nothing is left in it when a thread ends.
    static CURRENT: Cell<ManuallyDrop<Option<Current>>> =
        const { Cell::new(ManuallyDrop::new(None)) };
}

/// A guard that makes a scope current until it is dropped.
///
/// It replaces a closure, because a closure would move requests and responses through it.
#[must_use = "the scope is current until the guard is dropped"]
pub(crate) struct Entered<'a> {
    /// Holds the previous scope while the guard exists.
    slot: &'a mut Option<Current>,
    /// The guard must be dropped on its thread.
    not_send: PhantomData<*const ()>,
}

/// Makes the scope in `slot` current. It is back in `slot` when the guard is dropped.
#[inline]
pub(crate) fn enter(slot: &mut Option<Current>) -> Entered<'_> {
    swap(slot);
    Entered {
        slot,
        not_send: PhantomData,
    }
}

impl Drop for Entered<'_> {
    #[inline]
    fn drop(&mut self) {
        swap(self.slot);
    }
}

/// Returns the scope of the running code.
#[inline]
pub(crate) fn get() -> Option<Current> {
    with(Current::clone)
}

/// Returns the relation of the calling code to `scope`.
pub(crate) fn for_caller(scope: Arc<Scope>) -> Current {
    let role = with(|current| Arc::ptr_eq(&current.scope, &scope).then_some(current.role));
    Current {
        scope,
        role: role.flatten().unwrap_or(Role::External),
    }
}

/// Propagates the current scope into a closure that runs on another thread.
pub(crate) fn propagate<T>(closure: impl FnOnce() -> T) -> impl FnOnce() -> T {
    let mut current = get().map(|current| Current::external(current.scope));
    move || {
        let _entered = enter(&mut current);
        closure()
    }
}

#[inline]
fn with<T>(look: impl FnOnce(&Current) -> T) -> Option<T> {
    let mut slot = None;
    let entered = enter(&mut slot);
    entered.slot.as_ref().map(look)
}

#[cfg(not(all(test, axum_defer_loom)))]
#[inline]
fn swap(slot: &mut Option<Current>) {
    let entering = ManuallyDrop::new(slot.take());
    *slot = ManuallyDrop::into_inner(CURRENT.replace(entering));
}

/// Does nothing: the threads of a model share one thread of the operating system, so models use
/// collections instead.
#[cfg(all(test, axum_defer_loom))]
fn swap(_: &mut Option<Current>) {}

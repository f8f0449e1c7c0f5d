//! The lock and the atomics of the state machines. Models use those of loom (`--cfg axum_defer_loom`).

#[cfg(not(all(test, axum_defer_loom)))]
pub(crate) use std::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

#[cfg(all(test, axum_defer_loom))]
mod loom;
#[cfg(all(test, axum_defer_loom))]
pub(crate) mod loom_runtime;

#[cfg(all(test, axum_defer_loom))]
pub(crate) use self::loom::{AtomicBool, AtomicU64};
#[cfg(all(test, axum_defer_loom))]
pub(crate) use ::loom::sync::{Mutex, MutexGuard, atomic::Ordering};

/// Locks a mutex and ignores poisoning. No user code runs under a lock, so a panic cannot leave the
/// state half-changed.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

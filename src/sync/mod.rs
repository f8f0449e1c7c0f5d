//! The lock and the atomics of the state machines, swapped for loom's under `--cfg axum_defer_loom`.

#[cfg(not(axum_defer_loom))]
pub(crate) use std::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

#[cfg(axum_defer_loom)]
mod modelled;
#[cfg(all(test, axum_defer_loom))]
pub(crate) mod modelled_runtime;

#[cfg(axum_defer_loom)]
pub(crate) use self::modelled::{AtomicBool, AtomicU64};
#[cfg(axum_defer_loom)]
pub(crate) use loom::sync::{Mutex, MutexGuard, atomic::Ordering};

/// Locks without regard to poisoning: no user code runs under any of our locks, so a panic can't
/// have left the state half-changed.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

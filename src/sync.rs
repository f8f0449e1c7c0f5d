//! The lock and the atomics of the state machines, swapped for loom's under `--cfg axum_defer_loom`.

#[cfg(not(axum_defer_loom))]
pub(crate) use std::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

#[cfg(axum_defer_loom)]
pub(crate) use self::modelled::{AtomicBool, AtomicU64};
#[cfg(axum_defer_loom)]
pub(crate) use loom::sync::{Mutex, MutexGuard, atomic::Ordering};

/// loom gives a `SeqCst` access no more than acquire and release, and so reports orders that can't
/// be. Of fences it knows the single total order, so each such access gets one.
#[cfg(axum_defer_loom)]
mod modelled {
    use loom::sync::atomic::{self, Ordering, Ordering::SeqCst, fence};

    fn fence_if_total(order: Ordering) {
        if order == SeqCst {
            fence(SeqCst);
        }
    }

    #[derive(Debug, Default)]
    pub(crate) struct AtomicU64(atomic::AtomicU64);

    impl AtomicU64 {
        pub(crate) fn new(value: u64) -> Self {
            Self(atomic::AtomicU64::new(value))
        }

        pub(crate) fn load(&self, order: Ordering) -> u64 {
            fence_if_total(order);
            self.0.load(order)
        }

        pub(crate) fn store(&self, value: u64, order: Ordering) {
            self.0.store(value, order);
            fence_if_total(order);
        }

        pub(crate) fn fetch_add(&self, value: u64, order: Ordering) -> u64 {
            fence_if_total(order);
            let before = self.0.fetch_add(value, order);
            fence_if_total(order);
            before
        }
    }

    #[derive(Debug, Default)]
    pub(crate) struct AtomicBool(atomic::AtomicBool);

    impl AtomicBool {
        pub(crate) fn new(value: bool) -> Self {
            Self(atomic::AtomicBool::new(value))
        }

        pub(crate) fn load(&self, order: Ordering) -> bool {
            fence_if_total(order);
            self.0.load(order)
        }

        pub(crate) fn store(&self, value: bool, order: Ordering) {
            self.0.store(value, order);
            fence_if_total(order);
        }
    }
}

/// Locks without regard to poisoning: no user code runs under any of our locks, so a panic can't
/// have left the state half-changed.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

//! Atomics of loom.
//!
//! loom treats `SeqCst` accesses as acquire and release, and so explores impossible orders. It does
//! model the single total order of fences, so each `SeqCst` access gets a fence.

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

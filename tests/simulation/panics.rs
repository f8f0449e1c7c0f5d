//! Panics that belong to a run, and those that do not.

use std::{any::Any, cell::Cell, panic::PanicHookInfo, sync::Once};

/// The payload of every panic that a run plans.
pub const PLANNED: &str = "planned by the simulation";

thread_local! {
    static UNPLANNED: Cell<u64> = const { Cell::new(0) };
    static FROM_H2: Cell<u64> = const { Cell::new(0) };
}

/// Silences planned panics, and counts the others, which tasks would swallow.
pub fn install_hook() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if is_planned(info.payload()) {
                return;
            }
            if is_h2_assertion(info) {
                FROM_H2.set(FROM_H2.get() + 1);
                return;
            }
            UNPLANNED.set(UNPLANNED.get() + 1);
            hook(info);
        }));
    });
}

/// Panics on this thread that no run has planned.
pub fn unplanned() -> u64 {
    UNPLANNED.get()
}

/// Failed debug assertions of h2 on this thread; each leaks a little.
pub fn from_h2() -> u64 {
    FROM_H2.get()
}

fn is_planned(payload: &(dyn Any + Send)) -> bool {
    text(payload) == Some(PLANNED)
}

fn text(payload: &(dyn Any + Send)) -> Option<&str> {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| payload.downcast_ref::<&str>().copied())
}

/// With debug assertions, h2 panics if a connection is dropped before its streams.
fn is_h2_assertion(info: &PanicHookInfo<'_>) -> bool {
    text(info.payload()).is_some_and(|text| text.contains("!self.has_streams()"))
}

//! Panics that a test plans, without their output.
#![allow(dead_code, reason = "each test file uses only a part of it")]

use std::{any::Any, sync::Once};

pub(crate) const PLANNED: &str = "planned by the test";

/// Silences planned panics, because thousands of them would hide an unplanned one.
pub(crate) fn silence_planned_panics() {
    silence_panics(is_planned);
}

pub(crate) fn is_planned(payload: &(dyn Any + Send)) -> bool {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| payload.downcast_ref::<&str>().copied());
    text == Some(PLANNED)
}

/// Silences panics with these payloads. The hook is global, so all calls must silence the same panics.
pub(crate) fn silence_panics(which: fn(&(dyn Any + Send)) -> bool) {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let others = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !which(info.payload()) {
                others(info);
            }
        }));
    });
}

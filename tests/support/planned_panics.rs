//! Panics that a test plans, and that nobody has to read about.
#![allow(dead_code, reason = "every test file uses a part of it")]

use std::{any::Any, sync::Once};

pub(crate) const PLANNED: &str = "planned by the test";

/// Thousands of planned panics would bury the one that matters.
pub(crate) fn silence_planned_panics() {
    silence_panics(is_planned);
}

pub(crate) fn is_planned(payload: &(dyn Any + Send)) -> bool {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| payload.downcast_ref::<&str>().copied());
    text == Some(PLANNED)
}

/// The hook is the process's, which is why all calls have to name the same panics.
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

//! Keeps a panic in user code from reaching the server, the runtime or the next callback.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
};

/// Runs `code`; a panic becomes its message.
pub(crate) fn isolate<T>(code: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(code)).map_err(|payload| {
        let message = message(payload.as_ref());
        // The payload is user data: its own drop may panic too, and then there is no one left
        // to tell.
        if let Err(second) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
            // Text is all that is sure not to do the same for ever.
            if text(second.as_ref()).is_none() {
                std::mem::forget(second);
            }
        }
        message
    })
}

/// Drops user data; a panic in its destructor ends here.
pub(crate) fn drop_isolated<T>(value: T) {
    let _ = isolate(|| drop(value));
}

fn message(payload: &(dyn Any + Send)) -> String {
    let text = text(payload).unwrap_or("a panic payload that is no string");
    text.to_owned()
}

fn text(payload: &(dyn Any + Send)) -> Option<&str> {
    let literal = payload.downcast_ref::<&'static str>().copied();
    literal.or_else(|| payload.downcast_ref::<String>().map(String::as_str))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct PanicsOnDrop;

    impl Drop for PanicsOnDrop {
        fn drop(&mut self) {
            std::panic::panic_any(PanicsOnDrop);
        }
    }

    #[test]
    fn a_panic_becomes_its_message() {
        assert_eq!(isolate(|| 7), Ok(7));
        assert_eq!(isolate(|| panic!("plain")), Err::<(), _>("plain".into()));
        let number = 3;
        assert_eq!(
            isolate(|| panic!("of {number}")),
            Err::<(), _>("of 3".into())
        );
    }

    #[test]
    fn a_payload_that_panics_when_dropped_ends_here() {
        let outcome: Result<(), _> = isolate(|| std::panic::panic_any(PanicsOnDrop));
        assert!(outcome.unwrap_err().contains("no string"));
        drop_isolated(PanicsOnDrop);
    }
}

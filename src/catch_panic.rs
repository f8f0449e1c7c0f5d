//! Catches panics of user code, which must not reach the server, the runtime, or the next callback.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
};

/// Runs `code` and returns the message of its panic as an error.
pub(crate) fn catch_panic<T>(code: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(code)).map_err(|payload| {
        let message = message(payload.as_ref());
        // The payload is user data, and its destructor may panic too.
        if let Err(second) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
            // Only text is certain not to panic again.
            if text(second.as_ref()).is_none() {
                std::mem::forget(second);
            }
        }
        message
    })
}

/// Drops user data and ignores a panic of its destructor.
pub(crate) fn drop_catching_panic<T>(value: T) {
    let _ = catch_panic(|| drop(value));
}

/// Returns the message of a panic.
pub(crate) fn message(payload: &(dyn Any + Send)) -> String {
    let text = text(payload).unwrap_or("the panic payload is not a string");
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
    fn panic_caught_becomes_its_message() {
        assert_eq!(catch_panic(|| 7), Ok(7));
        assert_eq!(
            catch_panic(|| panic!("plain")),
            Err::<(), _>("plain".into())
        );
        let number = 3;
        assert_eq!(
            catch_panic(|| panic!("of {number}")),
            Err::<(), _>("of 3".into())
        );
    }

    #[test]
    fn payload_panicking_on_drop_is_ignored() {
        let outcome: Result<(), _> = catch_panic(|| std::panic::panic_any(PanicsOnDrop));
        assert!(outcome.unwrap_err().contains("not a string"));
        drop_catching_panic(PanicsOnDrop);
    }
}

//! The text of a failure.

use std::{
    any::Any,
    error::Error,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
};

use crate::{outcome::Outcome, truncate::format_truncated};

/// The limit for the text of an error with its sources.
const MAX_ERROR_BYTES: usize = 8 * 1024;
/// The limit for a chain of sources, because an error may be its own source.
const MAX_SOURCES: usize = 32;

/// Returns the recorded outcome and the text of a failure.
///
/// Formats the error, which runs user code. Call it without holding the lock of the record.
pub(crate) fn outcome_and_text(outcome: &axum_defer::Outcome<'_>) -> (Outcome, String) {
    use axum_defer::Outcome as Observed;
    match outcome {
        Observed::Ok => (Outcome::Ok, String::new()),
        Observed::Error(error) => (Outcome::Error, error_text(*error)),
        Observed::Panicked(message) => (
            Outcome::Panicked,
            format_truncated(message, MAX_ERROR_BYTES),
        ),
        Observed::TimedOut(limit) => (Outcome::TimedOut, format!("timed out after {limit:?}")),
        other => (Outcome::Error, format_truncated(other, MAX_ERROR_BYTES)),
    }
}

fn error_text(error: &(dyn Error + Send + Sync + 'static)) -> String {
    let text = || format_truncated(&Chain(error), MAX_ERROR_BYTES);
    catch_unwind(AssertUnwindSafe(text)).unwrap_or_else(|payload| {
        let message = format_truncated(&panic_message(&*payload), MAX_ERROR_BYTES);
        // The destructor of the payload may panic again, with a payload that does the same.
        if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
            std::mem::forget(again);
        }
        format!("formatting the error panicked: {message}")
    })
}

fn panic_message(payload: &(dyn Any + Send)) -> &str {
    match payload.downcast_ref::<String>() {
        Some(message) => message,
        None => payload.downcast_ref().copied().unwrap_or("unknown panic"),
    }
}

/// An error and its sources, one line each.
struct Chain<'a>(&'a (dyn Error + Send + Sync + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.0)?;
        let mut source = self.0.source();
        for _ in 0..MAX_SOURCES {
            let Some(error) = source else { break };
            write!(formatter, "\ncaused by: {error}")?;
            source = error.source();
        }
        Ok(())
    }
}

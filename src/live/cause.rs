//! What a callback failed with, in words.

use std::{error::Error, fmt};

use super::{end::End, text::say};
use crate::{isolate::isolate, observe::outcome::Outcome};

/// Of an error and its sources, what is longer is cut.
const ERROR_BYTES: usize = 8 * 1024;

/// The text of an error is user code: it is asked for here, without a lock.
pub(super) fn failure(outcome: &Outcome<'_>) -> Option<(End, String)> {
    Some(match outcome {
        Outcome::Ok => return None,
        Outcome::Error(error) => {
            let text = isolate(|| say(&Chain(*error), ERROR_BYTES));
            let text = text.unwrap_or_else(|panic| format!("its text could not be had: {panic}"));
            (End::Error, text)
        }
        Outcome::Panicked(message) => (End::Panicked, say(message, ERROR_BYTES)),
        Outcome::TimedOut(limit) => (End::TimedOut, format!("took longer than {limit:?}")),
    })
}

/// An error and what it came from, a line each.
struct Chain<'a>(&'a (dyn Error + Send + Sync + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.0)?;
        let mut source = self.0.source();
        // An error may be its own source.
        for _ in 0..32 {
            let Some(error) = source else { break };
            write!(formatter, "\ncaused by: {error}")?;
            source = error.source();
        }
        Ok(())
    }
}

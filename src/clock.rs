//! The clock and its timer: Tokio's, and what takes their place where there is none.
//!
//! On `wasm32-unknown-unknown`, `std` panics when it is asked for the time, and Tokio asks `std`:
//! "unsupported/time.rs" of the standard library.

use std::{fmt, time::Duration};

#[cfg(not(all(target_family = "wasm", target_os = "unknown")))]
pub(crate) use tokio::time::Instant;
#[cfg(all(target_family = "wasm", target_os = "unknown"))]
pub(crate) use web_time::Instant;

use crate::isolate::isolate;

/// There is nothing that could end a callback after a time.
#[derive(Debug)]
pub(crate) struct NoTimer {
    why: String,
}

impl fmt::Display for NoTimer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { why } = self;
        write!(formatter, "there is no timer for its time-out: {why}")
    }
}

impl std::error::Error for NoTimer {}

/// A sleep by Tokio's timer, if that is there.
pub(crate) fn sleep(limit: Duration) -> Result<tokio::time::Sleep, NoTimer> {
    if cfg!(all(target_family = "wasm", target_os = "unknown")) {
        let why = "Tokio has none on wasm32-unknown-unknown".to_owned();
        return Err(NoTimer { why });
    }
    if tokio::runtime::Handle::try_current().is_err() {
        let why = "it runs outside of a Tokio runtime".to_owned();
        return Err(NoTimer { why });
    }
    // Tokio can't be asked whether the time driver of a runtime is enabled.
    isolate(|| tokio::time::sleep(limit)).map_err(|why| NoTimer { why })
}

//! The clock and its timer: those of Tokio, except on `wasm32-unknown-unknown`.
//!
//! There, the clock of `std` panics ("unsupported/time.rs" of the standard library), and Tokio uses it.

use std::{fmt, time::Duration};

#[cfg(not(all(target_family = "wasm", target_os = "unknown")))]
pub(crate) use tokio::time::Instant;
#[cfg(all(target_family = "wasm", target_os = "unknown"))]
pub(crate) use web_time::Instant;

use crate::catch_panic::catch_panic;

/// The error of [`sleep`]: there is no timer.
#[derive(Debug)]
pub(crate) struct NoTimer {
    why: String,
}

impl fmt::Display for NoTimer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { why } = self;
        write!(formatter, "there is no timer for the timeout: {why}")
    }
}

impl std::error::Error for NoTimer {}

/// Returns a sleep of Tokio's timer, if there is one.
pub(crate) fn sleep(limit: Duration) -> Result<tokio::time::Sleep, NoTimer> {
    if cfg!(all(target_family = "wasm", target_os = "unknown")) {
        let why = "Tokio has no timer on wasm32-unknown-unknown".to_owned();
        return Err(NoTimer { why });
    }
    if tokio::runtime::Handle::try_current().is_err() {
        let why = "the callback runs outside of a Tokio runtime".to_owned();
        return Err(NoTimer { why });
    }
    // Tokio has no way to ask whether the time driver is enabled.
    catch_panic(|| tokio::time::sleep(limit)).map_err(|why| NoTimer { why })
}

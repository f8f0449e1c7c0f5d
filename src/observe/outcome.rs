//! Ends of callbacks.

use std::{error::Error, fmt, time::Duration};

use super::text::{ErrorChain, OneLine};

/// The end of a callback that ran.
///
/// ```
/// use axum_defer::{CallbackInfo, DeferObserver, Finished};
///
/// struct Slow;
///
/// impl DeferObserver for Slow {
///     fn finished(&self, callback: &CallbackInfo<'_>, finished: &Finished<'_>) {
///         if finished.is_ok() && finished.run_time.as_secs() > 10 {
///             println!("{callback}: {:?} after {:?}", finished.run_time, finished.queue_time);
///         }
///     }
/// }
/// # let _ = axum_defer::DeferLayer::new().observer(Slow);
/// ```
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Finished<'a> {
    /// The outcome.
    pub outcome: Outcome<'a>,
    /// The time from the end of the response, or the registration if that was later, to the start.
    pub queue_time: Duration,
    /// The time from the start to the end.
    pub run_time: Duration,
}

impl Finished<'_> {
    /// Returns `true` if the callback succeeded.
    pub fn is_ok(&self) -> bool {
        matches!(self.outcome, Outcome::Ok)
    }
}

/// The outcome of a callback that ran.
///
/// `Display` writes one line: an error with its sources, control characters escaped, and at most
/// 4 KiB.
///
/// ```
/// use axum_defer::{CallbackInfo, DeferObserver, Finished, Outcome};
///
/// struct Log;
///
/// impl DeferObserver for Log {
///     fn finished(&self, callback: &CallbackInfo<'_>, finished: &Finished<'_>) {
///         match finished.outcome {
///             Outcome::Ok => {}
///             Outcome::Error(error) => eprintln!("{callback}: {error}, {:?}", error.source()),
///             Outcome::TimedOut(limit) => eprintln!("{callback} did not end within {limit:?}"),
///             other => eprintln!("{callback} {other}"),
///         }
///     }
/// }
/// # let _ = axum_defer::DeferLayer::new().observer(Log);
/// ```
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Outcome<'a> {
    /// It returned `()` or `Ok(())`.
    Ok,
    /// It returned this error.
    Error(&'a (dyn Error + Send + Sync + 'static)),
    /// It panicked with this message, or its predicate did
    /// ([`DeferredCallback::when`](crate::DeferredCallback::when)).
    Panicked(&'a str),
    /// It did not end within this time and was dropped. Blocking work continues.
    TimedOut(Duration),
}

impl Outcome<'_> {
    #[cfg(feature = "metrics")]
    pub(crate) fn label(&self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Error(_) => "error",
            Self::Panicked(_) => "panicked",
            Self::TimedOut(_) => "timed_out",
        }
    }
}

impl fmt::Display for Outcome<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ok => formatter.write_str("ok"),
            Self::Error(error) => write!(formatter, "error: {}", ErrorChain(*error)),
            Self::Panicked(message) => write!(formatter, "panicked: {}", OneLine(message)),
            Self::TimedOut(limit) => write!(formatter, "timed out after {limit:?}"),
        }
    }
}

/// The reason why a callback that should have run was lost.
///
/// ```
/// use axum_defer::{CallbackInfo, DeferObserver, LostReason};
///
/// struct Alarm;
///
/// impl DeferObserver for Alarm {
///     fn lost(&self, callback: &CallbackInfo<'_>, reason: LostReason) {
///         let started = reason == LostReason::Interrupted;
///         eprintln!("{callback} was lost: {reason}. Did it start? {started}");
///     }
/// }
/// # let _ = axum_defer::DeferLayer::new().observer(Alarm);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LostReason {
    /// There was no Tokio runtime to run it on, or the runtime was shutting down.
    NoRuntime,
    /// It had started, and then the runtime shut down, or the future that ran it was dropped (for
    /// example a [`scope`](crate::scope())).
    Interrupted,
}

impl fmt::Display for LostReason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::NoRuntime => "there is no runtime to run it on",
            Self::Interrupted => "it was interrupted while it was running",
        })
    }
}

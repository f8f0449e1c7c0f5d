//! How callbacks end.

use std::{error::Error, fmt, time::Duration};

/// How a callback that ran came to its end.
///
/// ```
/// use axum_defer::{CallbackInfo, DeferObserver, Finished};
///
/// struct Slow;
///
/// impl DeferObserver for Slow {
///     fn finished(&self, callback: &CallbackInfo<'_>, finished: &Finished<'_>) {
///         if finished.is_ok() && finished.took.as_secs() > 10 {
///             println!("{callback} took {:?}, after {:?}", finished.took, finished.waited);
///         }
///     }
/// }
/// # let _ = axum_defer::DeferLayer::new().observer(Slow);
/// ```
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Finished<'a> {
    /// What came of it.
    pub outcome: Outcome<'a>,
    /// From the end of the response, or its registration if that was later, to its start.
    pub waited: Duration,
    /// From its start to its end.
    pub took: Duration,
}

impl Finished<'_> {
    /// Whether the callback did what it should.
    pub fn is_ok(&self) -> bool {
        matches!(self.outcome, Outcome::Ok)
    }
}

/// What came of a callback that ran.
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
///             Outcome::TimedOut(limit) => eprintln!("{callback} hangs, {limit:?} is over"),
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
    /// It panicked with this message, or the predicate given with
    /// [`DeferredCallback::when`](crate::DeferredCallback::when) did.
    Panicked(&'a str),
    /// It took longer than this, and was dropped; blocking work goes on unwatched.
    TimedOut(Duration),
}

impl Outcome<'_> {
    #[cfg(any(feature = "tracing", feature = "metrics"))]
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
            Self::Error(error) => write!(formatter, "error: {error}"),
            Self::Panicked(message) => write!(formatter, "panicked: {message}"),
            Self::TimedOut(limit) => write!(formatter, "timed out after {limit:?}"),
        }
    }
}

/// Why a callback that should have run did not, or not to its end.
///
/// ```
/// use axum_defer::{CallbackInfo, DeferObserver, LostReason};
///
/// struct Alarm;
///
/// impl DeferObserver for Alarm {
///     fn lost(&self, callback: &CallbackInfo<'_>, reason: LostReason) {
///         let begun = reason == LostReason::Interrupted;
///         eprintln!("{callback} was lost: {reason}. Had it begun? {begun}");
///     }
/// }
/// # let _ = axum_defer::DeferLayer::new().observer(Alarm);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LostReason {
    /// There was no Tokio runtime to run it on, or the runtime was shutting down.
    NoRuntime,
    /// It had started, and was cut off: the runtime shut down, or the future that ran it (a
    /// [`scope`](crate::scope()), say) was dropped.
    Interrupted,
}

impl fmt::Display for LostReason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::NoRuntime => "there is no runtime to run it on",
            Self::Interrupted => "it was cut off while it was running",
        })
    }
}

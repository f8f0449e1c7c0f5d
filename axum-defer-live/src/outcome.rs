//! The recorded outcome of a callback.

/// The end of a callback. Unlike [`axum_defer::Outcome`], this includes callbacks that did not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Ok,
    Error,
    Panicked,
    TimedOut,
    Lost,
    Skipped,
    Cancelled,
    Replaced,
    Duplicate,
}

impl Outcome {
    /// Returns the label that metrics use, too.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Error => "error",
            Self::Panicked => "panicked",
            Self::TimedOut => "timed_out",
            Self::Lost => "lost",
            Self::Skipped => "skipped",
            Self::Cancelled => "cancelled",
            Self::Replaced => "replaced",
            Self::Duplicate => "duplicate",
        }
    }

    pub(crate) fn is_failure(self) -> bool {
        matches!(
            self,
            Self::Error | Self::Panicked | Self::TimedOut | Self::Lost
        )
    }

    /// Returns `true` if the callback ran or should have run; lost callbacks count.
    pub(crate) fn has_run(self) -> bool {
        self == Self::Ok || self.is_failure()
    }
}

//! How a callback of the record ended.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
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

impl End {
    /// As in metrics.
    pub(super) fn label(self) -> &'static str {
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

    pub(super) fn is_failure(self) -> bool {
        matches!(
            self,
            Self::Error | Self::Panicked | Self::TimedOut | Self::Lost
        )
    }

    /// Or should have: what is lost counts.
    pub(super) fn has_run(self) -> bool {
        self == Self::Ok || self.is_failure()
    }
}

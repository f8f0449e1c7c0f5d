//! How callbacks ended, and how many did so.

/// How a callback's time with the tracker ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Ran,
    Failed,
    Skipped,
    Lost,
    /// Cancelled, forgotten or replaced: somebody wanted it so.
    Withdrawn,
}

#[derive(Clone, Copy, Default)]
pub(super) struct Tally {
    pub(super) ran: u64,
    pub(super) failed: u64,
    pub(super) skipped: u64,
    pub(super) lost: u64,
}

//! When a callback runs: before the response goes out, or after it.

use std::fmt;

/// When a callback runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// The response waits for it: [`before_response`](crate::before_response).
    Before,
    /// The response is over: [`defer`](crate::defer()).
    After,
}

impl Phase {
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Before => "before",
            Self::After => "after",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.label())
    }
}

//! When a callback runs: before the response goes out, or after it.

use std::fmt;

/// When a callback runs.
///
/// ```
/// use axum_defer::{CallbackInfo, DeferObserver, Phase};
///
/// struct Waits;
///
/// impl DeferObserver for Waits {
///     fn started(&self, callback: &CallbackInfo<'_>, _: std::time::Duration) {
///         if callback.phase() == Phase::Before {
///             println!("a client waits for {callback}");
///         }
///     }
/// }
/// # let _ = axum_defer::DeferLayer::new().observer(Waits);
/// ```
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

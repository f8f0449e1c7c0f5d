//! The two phases of a scope.

use std::fmt;

/// The time at which a callback runs: before or after the response.
///
/// ```
/// use axum_defer::{CallbackInfo, DeferObserver, Phase};
///
/// struct BeforeOnly;
///
/// impl DeferObserver for BeforeOnly {
///     fn started(&self, callback: &CallbackInfo<'_>, _: std::time::Duration) {
///         if callback.phase() == Phase::Before {
///             println!("the client waits for {callback}");
///         }
///     }
/// }
/// # let _ = axum_defer::DeferLayer::new().observer(BeforeOnly);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// The response waits for the callback: [`before_response`](crate::before_response).
    Before,
    /// The callback runs after the response: [`defer`](crate::defer()).
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

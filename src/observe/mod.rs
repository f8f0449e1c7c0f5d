//! Events about callbacks, for observers, `tracing`, and `metrics`.

pub(crate) mod callback_info;
pub(crate) mod dispatch;
#[cfg(feature = "metrics")]
pub(crate) mod metrics;
pub(crate) mod observer;
pub(crate) mod outcome;
pub(crate) mod scope_info;
pub(crate) mod text;
#[cfg(feature = "tracing")]
pub(crate) mod tracing;

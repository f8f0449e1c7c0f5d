//! What happens to callbacks, told to whoever wants to know.

pub(crate) mod callback_info;
#[cfg(feature = "metrics")]
pub(crate) mod meter;
pub(crate) mod observer;
pub(crate) mod observers;
pub(crate) mod outcome;
pub(crate) mod phase;
pub(crate) mod scope_info;
#[cfg(feature = "tracing")]
pub(crate) mod trace;

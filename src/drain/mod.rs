//! Waiting for unfinished work, and the report at the end.

pub(crate) mod deadline;
pub(crate) mod drain;
pub(crate) mod report;
#[cfg(feature = "serve")]
pub(crate) mod server;
#[cfg(feature = "serve")]
pub(crate) mod shutdown_signal;

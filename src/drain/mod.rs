//! Waiting for unfinished work, and the report of what is left.

pub(crate) mod deadline;
pub(crate) mod drain;
pub(crate) mod report;
#[cfg(feature = "serve")]
pub(crate) mod server;
#[cfg(feature = "serve")]
pub(crate) mod shutdown_signal;

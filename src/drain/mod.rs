//! Waits for what is pending and running, and reports what was left.

pub(crate) mod asker;
pub(crate) mod deadline;
pub(crate) mod defer_handle;
pub(crate) mod draining;
pub(crate) mod report;
pub(crate) mod reservation;
#[cfg(feature = "serve")]
pub(crate) mod server;
pub(crate) mod shard;
pub(crate) mod shard_number;
#[cfg(feature = "serve")]
pub(crate) mod shutdown_signal;
pub(crate) mod tally;
pub(crate) mod tracker;

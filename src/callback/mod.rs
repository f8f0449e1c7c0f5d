//! What can be deferred, and the form in which it waits.

pub(crate) mod callback_future;
pub(crate) mod code;
pub(crate) mod deferrable;
pub(crate) mod entry;
pub(crate) mod output;
pub(crate) mod rule;
pub(crate) mod unique;

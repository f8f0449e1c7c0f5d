//! Callbacks: the types that can be deferred, and the form in which a callback waits.

pub(crate) mod deferrable;
pub(crate) mod entry;
pub(crate) mod output;
pub(crate) mod wrap;

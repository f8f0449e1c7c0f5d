//! What the page shows: each request, callback, failure and name as an element with a key.

pub(super) mod element;
pub(super) mod failures;
pub(super) mod names;
pub(super) mod now;
pub(super) mod requests;
pub(super) mod summary;
mod waterfall;

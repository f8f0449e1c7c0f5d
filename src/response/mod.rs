//! What a response says of itself: whether it is a success, and where its body ends.

pub(crate) mod classify;
pub(crate) mod end_of_body;

//! Success or failure of a response, and the end of its body.

pub(crate) mod classify;
pub(crate) mod end_of_body;

//! `before_response` callbacks.

mod before_response;
#[path = "../support/mod.rs"]
mod support;

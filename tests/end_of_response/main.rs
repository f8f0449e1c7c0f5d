//! The end of a response: when it is decided, and what a client notices of its callbacks.

mod client_gone;
mod completion;
mod destructors;
mod end_of_response;
mod non_blocking;
mod runtime_shutdown;
#[path = "../support/mod.rs"]
mod support;

//! Random requests, clients, and callbacks.
//!
//! [`chaos`] compares the resident memory of the process, so tests that need much memory belong to
//! another binary.

mod chaos;
mod properties;
#[path = "../support/mod.rs"]
mod support;

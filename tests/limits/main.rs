//! `max_pending`, `max_concurrency`, timeouts, and the memory of callbacks that have ended.

mod concurrent;
mod leaks;
mod limits;
#[path = "../support/mod.rs"]
mod support;
mod timeouts;

//! Callbacks and handlers that outlive their request: `run_to_completion`, `spawn_with`, and
//! `wait_until`.

mod run_to_completion;
mod spawn_with;
#[path = "../support/mod.rs"]
mod support;
mod wait_until;

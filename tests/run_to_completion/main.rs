//! Callbacks, handlers, and bodies that outlive their request: `run_to_completion`, `finish_body`,
//! `spawn_with`, and `wait_until`.

mod finish_body;
mod run_to_completion;
mod spawn_with;
#[path = "../support/mod.rs"]
mod support;
mod wait_until;

//! Models of the state machines, in every interleaving of two or three threads.
//!
//! Run them with the command in `CONTRIBUTING.md`. loom replaces the lock and the atomics of
//! [`sync`](crate::sync), runs each model in every order of their accesses, and fails on a deadlock.
//! At the end of each execution, [`RunRecord::close`](run_record::RunRecord::close) checks that each
//! callback ended exactly once, that no two callbacks of a scope ran at once, that nothing is
//! pending, running, or listed, and that every scope was dropped.
//!
//! loom does not see the reference counts of `std::sync::Arc`, Tokio's clock, and its runtime handle.
//! No decision depends on the last two. If one depends on a reference count, the model calls
//! [`RunRecord::pass`](run_record::RunRecord::pass) next to it, which is a step that loom orders.
//!
//! With `--cfg axum_defer_shuttle` in addition, [shuttle](https://docs.rs/shuttle) replaces loom and runs
//! models with eight threads in random interleavings, which are too many to explore.

#[cfg(not(axum_defer_shuttle))]
mod before_response;
#[cfg(not(axum_defer_shuttle))]
mod drain;
#[cfg(not(axum_defer_shuttle))]
mod explore;
#[cfg(axum_defer_shuttle)]
mod many_threads;
pub(crate) mod run_record;
#[cfg(not(axum_defer_shuttle))]
mod scope;

#[cfg(not(axum_defer_shuttle))]
pub(crate) use self::explore::{explore, explore_within};

//! Real processes on a real queue: two side by side, and one of them killed.
//!
//! `./with-postgres cargo test -- --nocapture` prints the counts and the seed; `KILL_SEED` sets it.

mod database;
#[path = "../../../killing/mod.rs"]
mod killing;
mod rounds;
mod side_by_side;

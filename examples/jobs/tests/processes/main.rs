//! Real processes on a real queue: load, kills, outages, and failures.
//!
//! `./with-postgres cargo test -- --nocapture` prints the counts and the seed. `KILL_SEED` sets the
//! seed.

mod database;
mod kills;
mod outages;
mod queue;
#[path = "../../../test_support/mod.rs"]
mod test_support;

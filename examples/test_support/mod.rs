//! Shared by the tests of `outbox`, `jobs`, and `shop`: an app as a child process, a client that
//! records responses, and reproducible random numbers.

pub mod client;
pub mod process;
pub mod random;

//! What the tests of `outbox` and `jobs` share: an app as a child process, clients that write down
//! what they were told, and a source of random numbers that can be repeated.

pub mod client;
pub mod process;
pub mod random;

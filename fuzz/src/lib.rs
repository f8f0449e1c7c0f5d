//! The simulation of the tests, for programs that are built in another way.

#[path = "../../tests/simulation/mod.rs"]
pub mod simulation;

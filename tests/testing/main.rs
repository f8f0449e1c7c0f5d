//! `axum_defer::testing`, recipes that use it, and `Debug` output.

mod debug_output;
mod recipes;
mod recorder;
#[path = "../support/mod.rs"]
mod support;

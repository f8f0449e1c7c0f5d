//! Flush detection: `axum_defer::sent`, and what it relies on.

mod contract;
mod exit;
mod grpc;
mod matrix;
mod no_cost;
mod outer_layers;
mod reset;
mod slow_reader;
#[path = "../support/mod.rs"]
mod support;
mod unix_socket;

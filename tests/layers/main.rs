//! `DeferLayer` with other layers, around and inside of routers, in each order.

mod compositions;
mod layer_order;
mod placement_and_servers;
mod placement_table;
mod run_to_completion_layers;
#[path = "../support/mod.rs"]
mod support;
mod transparent;

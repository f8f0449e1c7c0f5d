//! `DeferLayer` with other layers, around and inside of routers, in each order.

mod compositions;
mod layer_order;
mod layer_placement;
mod layer_places;
mod run_to_completion_layers;
#[path = "../support/mod.rs"]
mod support;
mod transparent;

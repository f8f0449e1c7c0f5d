//! Graceful shutdown: draining, its report, and the extractor.

mod extractor;
mod shutdown;
mod sigterm;
#[path = "../support/mod.rs"]
mod support;

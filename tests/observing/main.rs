//! Observers, metrics, spans, events, snapshots, and what they retain.

mod log_lines;
mod metrics;
mod observers;
mod request_in_logs;
mod retained_memory;
mod snapshot;
mod span_end;
#[path = "../support/mod.rs"]
mod support;
mod tracing_spans;

//! Observers, metrics, spans, events, and snapshots.

mod metrics;
mod observers;
mod request_in_logs;
mod snapshot;
mod span_end;
#[path = "../support/mod.rs"]
mod support;
mod tracing_spans;

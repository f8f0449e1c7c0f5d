//! `axum_defer::serve`: settings, hostile and slow clients, TLS.

mod hostile;
mod settings;
mod slow_clients;
#[path = "../support/mod.rs"]
mod support;
mod tls;
mod types;

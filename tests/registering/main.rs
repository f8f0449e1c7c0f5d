//! Registering callbacks: order, names, rules, nesting, cancellation, and scopes.

mod cancelling;
mod in_scope;
mod names;
mod semantics;
#[path = "../support/mod.rs"]
mod support;
mod wrap;

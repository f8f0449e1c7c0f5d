//! Hostile bytes for `axum_defer::serve`: eight bytes of seed, and what a client sends.

#![no_main]

use axum_defer_fuzz::simulation::run_bytes;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let outcome = run_bytes(bytes);
    assert!(outcome.violations.is_empty(), "{:#?}", outcome.violations);
});

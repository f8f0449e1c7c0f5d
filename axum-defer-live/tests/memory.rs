//! The memory of the record.

use axum_defer::{DeferLayer, DeferObserver, defer};
use axum_defer_live::Live;

const MIB: usize = 1024 * 1024;

struct Empty;

impl DeferObserver for Empty {}

/// Runs scopes one after the other, and counts this thread's allocations after the first 20.
fn measure(
    observer: impl DeferObserver,
    scopes: usize,
    register: fn(),
) -> allocation_counter::AllocationInfo {
    let layer = DeferLayer::new().observer(observer);
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let runtime = runtime.unwrap();
    let run = |scopes| {
        runtime.block_on(async {
            for _ in 0..scopes {
                layer.scope(async { register() }).await;
            }
        });
    };
    run(20);
    allocation_counter::measure(|| run(scopes))
}

#[test]
fn recording_a_callback_allocates_nothing() {
    let register = || drop(defer(async {}).name("mail"));
    for live in [Live::new(), Live::new().max_requests(10)] {
        let with_live = measure(live, 900, register);
        let with_none = measure(Empty, 900, register);
        assert!(with_none.count_total > 900);
        assert_eq!(with_live.count_total, with_none.count_total);
        assert_eq!(with_live.bytes_current, with_none.bytes_current);
    }
}

#[test]
fn long_names_and_errors_are_not_kept() {
    let live = Live::new().max_names(50).max_failures(50);
    let long = measure(live.clone(), 100, || {
        defer(async { Err("e".repeat(MIB)) }).name(long_name());
    });
    // 50 errors of 8 KiB, and 100 names of 120 bytes, 50 of them with statistics of 3 KiB.
    assert!(long.bytes_current < MIB as i64, "{long:?}");
    drop(live);
}

/// Returns a name of 1 MiB that differs from others in its first bytes.
fn long_name() -> String {
    use std::sync::atomic::{AtomicUsize, Ordering};
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("{number} {}", "n".repeat(MIB))
}

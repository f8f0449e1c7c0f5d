//! What the live view costs in memory.
#![cfg(feature = "live")]

use axum_defer::{DeferLayer, DeferObserver, defer, live::Live};

/// Runs one after the other; what they cost in this thread.
fn count_allocations(layer: &DeferLayer, callbacks: usize) -> allocation_counter::AllocationInfo {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let runtime = runtime.unwrap();
    let run = |callbacks| {
        runtime.block_on(async {
            for _ in 0..callbacks {
                let mail = async { drop(defer(async {}).name("mail")) };
                layer.scope(mail).await;
            }
        });
    };
    // Room is made for all that there will be.
    run(20);
    allocation_counter::measure(|| run(callbacks))
}

#[test]
fn what_is_recorded_of_a_callback_allocates_nothing_and_keeps_no_more_memory() {
    struct Empty;
    impl DeferObserver for Empty {}
    for live in [Live::new(), Live::new().requests(10)] {
        let with_live = count_allocations(&DeferLayer::new().observer(live), 900);
        let with_none = count_allocations(&DeferLayer::new().observer(Empty), 900);
        assert!(with_none.count_total > 900);
        assert_eq!(with_live.count_total, with_none.count_total);
        assert_eq!(with_live.bytes_current, with_none.bytes_current);
    }
}

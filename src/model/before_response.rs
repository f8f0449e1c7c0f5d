//! The first phase: pushes that the response waits for, while its head is released.

use super::{
    explore, explore_within,
    ledger::{Ended, Ledger, prepare},
};
use crate::{
    completion::{Completion, Delivery},
    observe::outcome::LostReason,
    sync::modelled_runtime,
};

/// Either the response waits for it, or whoever registers it hears that it is too late.
#[test]
fn before_response_races_with_head_release() {
    explore(
        "a push before the response while its head is released",
        || {
            let ledger = Ledger::open();
            let (guard, collection) = ledger.request(None);
            let pusher = ledger.on_a_thread(&collection, |ledger, collection| {
                ledger.before(collection, false)
            });
            let mut guard = prepare(guard);
            guard.verdict.delivery = Delivery::Complete;
            drop(guard);
            let registered = pusher.join().unwrap();
            assert!(!ledger.before(&collection, false), "it is too late now");
            drop(collection);
            let closed = ledger.close();
            assert_eq!(closed.ends, vec![Ended::Ran; usize::from(registered)]);
            let mut deliveries = closed.completions.iter().map(Completion::delivery);
            assert!(deliveries.all(|delivery| delivery == Delivery::Pending));
        },
    );
}

/// Who is alone with a scope lets its head go without a look at what others might do: what they did
/// who have let go of it counts.
#[test]
fn last_push_races_with_head_release() {
    explore(
        "the last push before the response while its head is released",
        || {
            let ledger = Ledger::open();
            let (guard, collection) = ledger.request(None);
            let pusher = ledger.on_a_thread(&collection, |ledger, collection| {
                let registered = ledger.before(collection, false);
                ledger.pass();
                registered
            });
            drop(collection);
            ledger.pass();
            let guard = prepare(guard);
            drop(guard);
            let registered = pusher.join().unwrap();
            let ends = ledger.close().ends;
            assert_eq!(ends, vec![Ended::Ran; usize::from(registered)]);
        },
    );
}

/// What was deferred goes by the outcome of the first phase, whoever joins that.
#[test]
fn failed_before_response_skips_the_rest() {
    explore_within(3, "two pushes before the response, one fails", || {
        let ledger = Ledger::open();
        let (guard, collection) = ledger.request(None);
        drop(ledger.defer(&collection));
        assert!(ledger.before(&collection, true));
        let pusher = ledger.on_a_thread(&collection, |ledger, collection| {
            ledger.before(collection, false)
        });
        let guard = prepare(guard);
        assert!(!guard.verdict.success);
        drop(guard);
        let joined = pusher.join().unwrap();
        drop(collection);
        let ends = ledger.close().ends;
        assert_eq!(ends[..2], [Ended::Skipped, Ended::Ran]);
        assert_eq!(ends[2..], vec![Ended::Skipped; usize::from(joined)]);
    });
}

/// Nobody has run the first phase when there is no response: a task does, and decides then.
#[test]
fn before_response_races_with_dropped_request() {
    explore("no response while another thread pushes before it", || {
        let ledger = Ledger::open();
        let (guard, collection) = ledger.request(None);
        drop(ledger.defer(&collection).always());
        let pusher = ledger.on_a_thread(&collection, |ledger, collection| {
            ledger.before(collection, false)
        });
        drop(guard);
        let registered = pusher.join().unwrap();
        drop(collection);
        let ends = ledger.close().ends;
        assert_eq!(ends[0], Ended::Ran);
        assert_eq!(ends[1..], vec![Ended::Skipped; usize::from(registered)]);
    });
}

#[test]
fn runtime_shutdown_loses_both_phases_once() {
    explore("a runtime that shuts down loses both phases once", || {
        modelled_runtime::shut_down();
        let ledger = Ledger::open();
        let (guard, collection) = ledger.request(None);
        drop(ledger.defer(&collection));
        assert!(ledger.before(&collection, false));
        let pusher = ledger.on_a_thread(&collection, |ledger, collection| {
            ledger.before(collection, false)
        });
        drop(guard);
        let registered = pusher.join().unwrap();
        drop(collection);
        let lost = Ended::Lost(LostReason::NoRuntime);
        assert_eq!(ledger.close().ends, vec![lost; 2 + usize::from(registered)]);
    });
}

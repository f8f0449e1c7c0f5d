//! Callbacks before the response, registered while its head is released.

use super::{
    explore, explore_within,
    run_record::{Ended, RunRecord, prepare},
};
use crate::{
    completion::{Completion, Delivery},
    observe::outcome::LostReason,
    sync::loom_runtime,
};

/// Either the response waits for the callback, or registering it returns an error.
#[test]
fn before_response_races_with_head_release() {
    explore("before_response while the head is released", || {
        let record = RunRecord::open();
        let (guard, collection) = record.request(None);
        let pusher = record.on_a_thread(&collection, |record, collection| {
            record.before(collection, false)
        });
        let mut guard = prepare(guard);
        guard.verdict.delivery = Delivery::Complete;
        drop(guard);
        let registered = pusher.join().unwrap();
        assert!(!record.before(&collection, false), "the head is released");
        drop(collection);
        let closed = record.close();
        assert_eq!(closed.ends, vec![Ended::Ran; usize::from(registered)]);
        let mut deliveries = closed.completions.iter().map(Completion::delivery);
        assert!(deliveries.all(|delivery| delivery == Delivery::Pending));
    });
}

/// The head is released without a lock if there is no other reference to the scope. Registrations
/// through dropped references must still be seen.
#[test]
fn last_push_races_with_head_release() {
    explore(
        "the last before_response while the head is released",
        || {
            let record = RunRecord::open();
            let (guard, collection) = record.request(None);
            let pusher = record.on_a_thread(&collection, |record, collection| {
                let registered = record.before(collection, false);
                record.pass();
                registered
            });
            drop(collection);
            record.pass();
            let guard = prepare(guard);
            drop(guard);
            let registered = pusher.join().unwrap();
            let ends = record.close().ends;
            assert_eq!(ends, vec![Ended::Ran; usize::from(registered)]);
        },
    );
}

/// A failure before the response decides the rule of deferred callbacks.
#[test]
fn failed_before_response_skips_the_rest() {
    explore_within(3, "two callbacks before the response, one fails", || {
        let record = RunRecord::open();
        let (guard, collection) = record.request(None);
        drop(record.defer(&collection));
        assert!(record.before(&collection, true));
        let pusher = record.on_a_thread(&collection, |record, collection| {
            record.before(collection, false)
        });
        let guard = prepare(guard);
        assert!(!guard.verdict.success);
        drop(guard);
        let joined = pusher.join().unwrap();
        drop(collection);
        let ends = record.close().ends;
        assert_eq!(ends[..2], [Ended::Skipped, Ended::Ran]);
        assert_eq!(ends[2..], vec![Ended::Skipped; usize::from(joined)]);
    });
}

/// Without a response, a task runs the callbacks before it and then decides the scope.
#[test]
fn before_response_races_with_dropped_request() {
    explore("before_response while the request is dropped", || {
        let record = RunRecord::open();
        let (guard, collection) = record.request(None);
        drop(record.defer(&collection).always());
        let pusher = record.on_a_thread(&collection, |record, collection| {
            record.before(collection, false)
        });
        drop(guard);
        let registered = pusher.join().unwrap();
        drop(collection);
        let ends = record.close().ends;
        assert_eq!(ends[0], Ended::Ran);
        assert_eq!(ends[1..], vec![Ended::Skipped; usize::from(registered)]);
    });
}

#[test]
fn runtime_shutdown_loses_both_phases_once() {
    explore("runtime shutdown with both phases", || {
        loom_runtime::shut_down();
        let record = RunRecord::open();
        let (guard, collection) = record.request(None);
        drop(record.defer(&collection));
        assert!(record.before(&collection, false));
        let pusher = record.on_a_thread(&collection, |record, collection| {
            record.before(collection, false)
        });
        drop(guard);
        let registered = pusher.join().unwrap();
        drop(collection);
        let lost = Ended::Lost(LostReason::NoRuntime);
        assert_eq!(record.close().ends, vec![lost; 2 + usize::from(registered)]);
    });
}

//! A tracker: what is counted in several shards is idle only if it was so at some moment.

use std::sync::Arc;

use super::explore_within;
use crate::{
    drain::{shard_number::ShardNumber, tally::End, tracker::Tracker},
    sync::{AtomicBool, Ordering::SeqCst},
};

/// One callback, from its registration to its end.
fn run(tracker: &Tracker, shard: ShardNumber) {
    tracker.started(shard, false);
    tracker.ended(shard, End::Ran, true);
}

#[test]
fn the_last_two_end_in_two_shards_while_somebody_waits() {
    explore_within(4, "the last two end in two shards", || {
        let tracker = Arc::new(Tracker::default());
        let threads = [0, 1].map(|number| {
            let shard = ShardNumber::number(number);
            tracker.registered(shard);
            let tracker = tracker.clone();
            loom::thread::spawn(move || run(&tracker, shard))
        });
        // If nobody told of the end, this would wait for ever.
        loom::future::block_on(tracker.wait_idle());
        assert_eq!((tracker.callbacks(), tracker.running()), (0, 0));
        for thread in threads {
            thread.join().unwrap();
        }
    });
}

/// There is always one: what begins in one shard does so before the last one in another is over.
#[test]
fn work_that_goes_from_shard_to_shard_is_never_idle() {
    explore_within(4, "work that goes from shard to shard", || {
        let tracker = Arc::new(Tracker::default());
        let is_last = Arc::new(AtomicBool::new(false));
        let shard = ShardNumber::number;
        tracker.registered(shard(1));
        let worker = {
            let (tracker, is_last) = (tracker.clone(), is_last.clone());
            loom::thread::spawn(move || {
                for (next, last) in [(0, 1), (1, 0)] {
                    tracker.registered(shard(next));
                    tracker.dropped(shard(last), End::Skipped, false);
                }
                is_last.store(true, SeqCst);
                tracker.dropped(shard(1), End::Skipped, false);
            })
        };
        if tracker.is_idle() {
            assert!(is_last.load(SeqCst), "before the last one was over");
        }
        worker.join().unwrap();
        assert!(tracker.is_idle());
    });
}

#[test]
fn one_that_ends_is_counted_out_as_running_and_as_left_at_once() {
    explore_within(4, "one that ends is counted out at once", || {
        let tracker = Arc::new(Tracker::default());
        let shard = ShardNumber::number(0);
        tracker.registered(shard);
        tracker.started(shard, false);
        let worker = {
            let tracker = tracker.clone();
            loom::thread::spawn(move || tracker.ended(shard, End::Ran, true))
        };
        // It was never pending again.
        assert_eq!(tracker.pending(), 0);
        worker.join().unwrap();
    });
}

/// A request that is run to completion and defers: either holds the drain up.
#[test]
fn a_request_lets_go_when_its_callbacks_are_counted() {
    explore_within(
        4,
        "a request lets go when its callbacks are counted",
        || {
            let tracker = Arc::new(Tracker::default());
            let (one, other) = (ShardNumber::number(0), ShardNumber::number(1));
            tracker.hold(other);
            let worker = {
                let tracker = tracker.clone();
                loom::thread::spawn(move || {
                    tracker.registered(one);
                    tracker.let_go(other);
                })
            };
            assert!(!tracker.is_idle());
            worker.join().unwrap();
            assert_eq!((tracker.callbacks(), tracker.held()), (1, 0));
        },
    );
}

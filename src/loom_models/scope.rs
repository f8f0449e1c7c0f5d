//! Scopes: registrations, cancellations, and renames while a scope is decided and runs.

use std::{
    future::{Future, poll_fn},
    sync::{Arc, atomic::Ordering::AcqRel},
    task::{Context, Poll, Waker},
};

use tokio::sync::oneshot;

use super::{
    explore, explore_within,
    run_record::{Ended, RunRecord, succeed},
};
use crate::{
    defer::deferred_callback::DeferredCallback, drain::Drain, observe::outcome::LostReason,
    scope::max_pending::PermitPool, sync::loom_runtime,
};

#[test]
fn push_races_with_body_end() {
    explore_within(4, "a push while the body ends", || {
        let record = RunRecord::open();
        let (guard, collection) = record.request(None);
        drop(record.defer(&collection));
        let pusher = record.on_a_thread(&collection, |record, collection| {
            drop(record.defer(collection));
            drop(record.defer(collection));
        });
        succeed(guard);
        pusher.join().unwrap();
        drop(collection);
        let closed = record.close();
        closed.all_ran(3);
        assert!(closed.order.is_sorted(), "in the order of registration");
    });
}

#[test]
fn two_pushes_race_with_body_end() {
    explore_within(3, "two threads push while the body ends", || {
        let record = RunRecord::open();
        let (guard, collection) = record.request(None);
        let one = record.on_a_thread(&collection, |record, collection| {
            drop(record.defer(collection))
        });
        let other = record.on_a_thread(&collection, |record, collection| {
            drop(record.defer(collection))
        });
        succeed(guard);
        one.join().unwrap();
        other.join().unwrap();
        drop(collection);
        record.close().all_ran(2);
    });
}

/// `CompletionGuard::drop` skips the decision if no other reference could register a callback.
#[test]
fn last_push_races_with_body_drop() {
    explore("the last push while the body is dropped", || {
        let record = RunRecord::open();
        let (guard, collection) = record.request(None);
        let pusher = record.on_a_thread(&collection, |record, collection| {
            drop(record.defer(collection));
            record.pass();
        });
        drop(collection);
        record.pass();
        succeed(guard);
        pusher.join().unwrap();
        record.close().all_ran(1);
    });
}

/// A runner takes no lock if it has the only reference to its scope.
#[test]
fn last_push_races_with_runner_end() {
    explore("the last push while the runner looks for more", || {
        let record = RunRecord::open();
        let (guard, collection) = record.request(None);
        drop(record.defer(&collection));
        let pusher = record.on_a_thread(&collection, |record, collection| {
            drop(record.defer(collection));
            record.pass();
        });
        drop(collection);
        succeed(guard);
        pusher.join().unwrap();
        let closed = record.close();
        closed.all_ran(2);
        assert!(closed.order.is_sorted(), "in the order of registration");
    });
}

#[test]
fn unused_collection_races_with_body_drop() {
    explore("an unused collection is dropped while the body is", || {
        let record = RunRecord::open();
        let (guard, collection) = record.request(None);
        let other = {
            let record = record.clone();
            loom::thread::spawn(move || {
                record.pass();
                drop(collection);
            })
        };
        record.pass();
        succeed(guard);
        other.join().unwrap();
        record.close().all_ran(0);
    });
}

#[test]
fn cancel_races_with_runner_start() {
    explore("a cancellation while the runner starts", || {
        let record = RunRecord::open();
        let (guard, collection) = record.request(None);
        let handle = record.defer(&collection);
        drop(record.defer(&collection));
        let canceller = loom::thread::spawn(move || handle.cancel());
        succeed(guard);
        let cancelled = canceller.join().unwrap();
        drop(collection);
        let expected = if cancelled {
            Ended::Cancelled
        } else {
            Ended::Ran
        };
        assert_eq!(record.close().ends, [expected, Ended::Ran]);
    });
}

#[test]
fn two_forgets_race_with_body_end() {
    explore("two threads forget one name while the body ends", || {
        let record = RunRecord::open();
        let (guard, collection) = record.request(None);
        drop(record.defer(&collection).name("a"));
        let [one, other] = [collection.clone(), collection.clone()]
            .map(|collection| loom::thread::spawn(move || collection.forget("a")));
        succeed(guard);
        let forgotten = one.join().unwrap() + other.join().unwrap();
        assert!(!collection.contains("a") && collection.is_empty() || forgotten == 0);
        drop(collection);
        let expected = match forgotten {
            0 => Ended::Ran,
            _ => Ended::Cancelled,
        };
        assert!(forgotten < 2);
        assert_eq!(record.close().ends, [expected]);
    });
}

#[test]
fn rename_and_cancel_race_with_body_end() {
    explore_within(3, "a rename and a cancellation while the body ends", || {
        let record = RunRecord::open();
        let (guard, collection) = record.request(None);
        let first = record.defer(&collection).name("a");
        let second = record.defer(&collection);
        let renamer = loom::thread::spawn(move || drop(second.name("a")));
        let canceller = loom::thread::spawn(move || first.cancel());
        succeed(guard);
        renamer.join().unwrap();
        let cancelled = canceller.join().unwrap();
        drop(collection);
        let closed = record.close();
        assert_eq!(closed.ends[1], Ended::Ran);
        assert_eq!(closed.ends[0] == Ended::Cancelled, cancelled);
    });
}

/// Renaming the earlier callback to the name of the later one replaces the earlier one.
#[test]
fn rename_to_later_name_races_with_forget() {
    explore_within(3, "a rename to a later name while it is forgotten", || {
        let record = RunRecord::open();
        let (guard, collection) = record.request(None);
        let first = record.defer(&collection);
        drop(record.defer(&collection).name("a"));
        let renamer = loom::thread::spawn(move || drop(first.name("a")));
        let forgetter = {
            let collection = collection.clone();
            loom::thread::spawn(move || collection.forget("a"))
        };
        succeed(guard);
        renamer.join().unwrap();
        let forgotten = forgetter.join().unwrap();
        drop(collection);
        let closed = record.close();
        let cancelled = closed
            .ends
            .iter()
            .filter(|ended| **ended == Ended::Cancelled)
            .count();
        assert_eq!(cancelled, forgotten);
        assert_ne!(closed.ends, [Ended::Cancelled, Ended::Replaced]);
    });
}

#[test]
fn handle_edit_races_with_failure() {
    explore("a handle is used while a failure is decided", || {
        let record = RunRecord::open();
        let (guard, collection) = record.request(None);
        let handle = record.defer(&collection);
        let user = loom::thread::spawn(move || {
            drop(handle.timeout(std::time::Duration::MAX).always());
        });
        drop(guard);
        user.join().unwrap();
        drop(collection);
        let closed = record.close();
        assert!(matches!(closed.ends[..], [Ended::Ran | Ended::Skipped]));
    });
}

#[test]
fn late_callback_starts_with_its_rule() {
    explore("a late callback never starts without its rule", || {
        let record = RunRecord::open();
        let (guard, collection) = record.request(None);
        drop(record.defer(&collection));
        let pusher = record.on_a_thread(&collection, |record, collection| {
            drop(record.defer(collection).always())
        });
        drop(collection);
        drop(guard);
        pusher.join().unwrap();
        assert_eq!(record.close().ends, [Ended::Skipped, Ended::Ran]);
    });
}

#[test]
fn nested_push_races_with_external_push() {
    explore("a nested push while another thread pushes", || {
        let record = RunRecord::open();
        let (guard, collection) = record.request(None);
        let nested = (record.clone(), collection.clone());
        drop(record.defer_with(&collection, move |_| async move {
            let (record, collection) = nested;
            drop(record.defer(&collection));
        }));
        let pusher = record.on_a_thread(&collection, |record, collection| {
            drop(record.defer(collection))
        });
        succeed(guard);
        pusher.join().unwrap();
        drop(collection);
        record.close().all_ran(3);
    });
}

/// The first callback waits for the second one: a lost wake-up of the runner is a deadlock.
#[test]
fn push_wakes_concurrent_runner() {
    explore_within(3, "a push wakes a concurrent runner", || {
        let record = RunRecord::with(|options| options.concurrent = true);
        let (guard, collection) = record.request(None);
        let (sender, receiver) = oneshot::channel();
        drop(record.defer_with(&collection, |_| async {
            receiver.await.unwrap();
        }));
        let pusher = record.on_a_thread(&collection, |record, collection| {
            drop(record.defer(collection));
            // Registered last, so that no later registration hides a lost wake-up.
            drop(record.defer_with(collection, |_| async {
                sender.send(()).unwrap();
            }));
        });
        succeed(guard);
        pusher.join().unwrap();
        drop(collection);
        record.close().all_ran(3);
    });
}

#[test]
fn runtime_shutdown_loses_each_callback_once() {
    explore_within(3, "runtime shutdown while callbacks are registered", || {
        loom_runtime::shut_down();
        let record = RunRecord::open();
        let (guard, collection) = record.request(None);
        let handle = record.defer(&collection);
        let pusher = record.on_a_thread(&collection, |record, collection| {
            drop(record.defer(collection))
        });
        let canceller = loom::thread::spawn(move || handle.cancel());
        succeed(guard);
        pusher.join().unwrap();
        let first = if canceller.join().unwrap() {
            Ended::Cancelled
        } else {
            Ended::Lost(LostReason::NoRuntime)
        };
        drop(collection);
        let lost = Ended::Lost(LostReason::NoRuntime);
        assert_eq!(record.close().ends, [first, lost]);
    });
}

/// Models a `scope(..)` future that is dropped while a callback is running.
#[test]
fn runner_dropped_midway_moves_to_task() {
    explore("a runner is dropped midway", || {
        let record = RunRecord::open();
        let (mut guard, collection) = record.request(None);
        drop(record.defer_with(&collection, |_| poll_fn(|_| Poll::Pending)));
        drop(record.defer(&collection));
        let pusher = record.on_a_thread(&collection, |record, collection| {
            drop(record.defer(collection))
        });
        guard.verdict.success = true;
        let mut here = Box::pin(guard.complete_here());
        let polled = here.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert!(polled.is_pending());
        drop(here);
        pusher.join().unwrap();
        drop(collection);
        let interrupted = Ended::Lost(LostReason::Interrupted);
        assert_eq!(record.close().ends, [interrupted, Ended::Ran, Ended::Ran]);
    });
}

/// A report at the deadline of a drain delays no callback.
#[test]
fn report_races_with_running_callbacks() {
    explore_within(3, "a report while callbacks run", || {
        let record = RunRecord::open();
        let drain = Drain::default();
        // Added before the request, so that the scope is listed.
        drain.add(&record.options.store);
        let (guard, collection) = record.request(None);
        drop(record.defer(&collection));
        let reporter = loom::thread::spawn(move || drain.report().unfinished.len());
        let pusher = record.on_a_thread(&collection, |record, collection| {
            drop(record.defer(collection))
        });
        drop(collection);
        succeed(guard);
        assert!(reporter.join().unwrap() <= 2);
        pusher.join().unwrap();
        record.close().all_ran(2);
    });
}

/// Two requests defer a callback of one name. Returns how they ended.
fn compete(compete: fn(DeferredCallback) -> DeferredCallback) -> Vec<Ended> {
    let record = RunRecord::open();
    let inside = Arc::new(loom::sync::atomic::AtomicUsize::new(0));
    let work = |inside: &Arc<loom::sync::atomic::AtomicUsize>| {
        let inside = inside.clone();
        move |_| async move {
            assert_eq!(inside.fetch_add(1, AcqRel), 0, "one at a time");
            inside.fetch_sub(1, AcqRel);
        }
    };
    let (one, of_one) = record.request(None);
    let (other, of_other) = record.request(None);
    let first = {
        let (record, work) = (record.clone(), work(&inside));
        loom::thread::spawn(move || {
            drop(compete(record.defer_with(&of_one, work).name("a")));
            drop(of_one);
            succeed(one);
        })
    };
    drop(compete(
        record.defer_with(&of_other, work(&inside)).name("a"),
    ));
    drop(of_other);
    succeed(other);
    first.join().unwrap();
    record.close().ends
}

#[test]
fn unique_callbacks_of_two_requests_never_overlap() {
    explore_within(3, "two requests defer a unique callback", || {
        let ends = compete(DeferredCallback::unique);
        assert!(ends.contains(&Ended::Ran), "{ends:?}");
        let is_allowed = |end: &Ended| matches!(end, Ended::Ran | Ended::Deduplicated);
        assert!(ends.iter().all(is_allowed), "{ends:?}");
    });
}

/// The second one runs after the first. A lost wake-up of its runner is a deadlock.
#[test]
fn coalesced_callbacks_of_two_requests_both_run() {
    explore_within(3, "two requests defer a coalesced callback", || {
        let ends = compete(DeferredCallback::coalesce);
        assert_eq!(ends, [Ended::Ran, Ended::Ran]);
    });
}

/// The permit of `max_pending` is released once: by the push, or by the end of the response.
#[test]
fn push_and_body_end_release_permit_once() {
    explore("a push releases its permit while the body ends", || {
        let record =
            RunRecord::with(|options| options.max_pending = Some(Arc::new(PermitPool::new(1))));
        let (guard, collection) = record.request(None);
        let pusher = record.on_a_thread(&collection, |record, collection| {
            drop(record.defer(collection))
        });
        succeed(guard);
        pusher.join().unwrap();
        drop(collection);
        loom_runtime::join_all();
        assert!(record.permit().is_some(), "the permit is free");
        record.close().all_ran(1);
    });
}

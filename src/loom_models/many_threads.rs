//! Models with eight threads, in random interleavings.
//!
//! `SHUTTLE_SCHEDULES` sets the number of interleavings per model.

use std::{
    future::poll_fn,
    sync::{Arc, atomic::Ordering::AcqRel},
};

use shuttle::{future::block_on, sync::atomic::AtomicUsize, thread};

use super::run_record::{Ended, RunRecord, succeed};
use crate::{
    defer::deferred_callback::DeferredCallback,
    drain::{Drain, DrainSource},
    scope::{
        max_pending::{PermitPool, Waiting},
        store::Store,
    },
    sync::loom_runtime,
};

const THREADS: usize = 8;

fn explore(model: impl Fn() + Send + Sync + 'static) {
    let schedules = std::env::var("SHUTTLE_SCHEDULES");
    let schedules = schedules.map_or(1_000, |count| count.parse().expect("a number"));
    shuttle::check_random(
        move || {
            loom_runtime::reset();
            model();
        },
        schedules,
    );
}

#[test]
fn pushes_race_with_body_end() {
    explore(|| {
        let record = RunRecord::open();
        let (guard, collection) = record.request(None);
        drop(record.defer(&collection));
        let threads = [(); THREADS].map(|()| {
            record.on_a_thread(&collection, |record, collection| {
                drop(record.defer(collection));
                drop(record.defer(collection));
            })
        });
        succeed(guard);
        for thread in threads {
            thread.join().unwrap();
        }
        drop(collection);
        record.close().all_ran(1 + 2 * THREADS);
    });
}

/// Each callback is replaced, cancelled, or run.
#[test]
fn edits_race_with_runner() {
    explore(|| {
        let record = RunRecord::open();
        let (guard, collection) = record.request(None);
        let threads = [(); THREADS].map(|()| {
            record.on_a_thread(&collection, |record, collection| {
                let named = record.defer(collection).name("a");
                let kept = record.defer(collection).name("b").always();
                named.cancel();
                drop(kept.name("a"));
            })
        });
        succeed(guard);
        for thread in threads {
            thread.join().unwrap();
        }
        drop(collection);
        let ends = record.close().ends;
        assert_eq!(ends.len(), 2 * THREADS);
        assert!(ends.contains(&Ended::Ran), "{ends:?}");
    });
}

/// Requests on eight threads defer a callback of one name. Returns how they ended.
fn compete(option: fn(DeferredCallback) -> DeferredCallback) -> Vec<Ended> {
    let record = RunRecord::open();
    let inside = Arc::new(AtomicUsize::new(0));
    let threads = [(); THREADS].map(|()| {
        let (record, inside) = (record.clone(), inside.clone());
        let (guard, collection) = record.request(None);
        thread::spawn(move || {
            let work = move |_| async move {
                assert_eq!(inside.fetch_add(1, AcqRel), 0, "one at a time");
                inside.fetch_sub(1, AcqRel);
            };
            drop(option(record.defer_with(&collection, work).name("a")));
            drop(collection);
            succeed(guard);
        })
    });
    for thread in threads {
        thread.join().unwrap();
    }
    record.close().ends
}

#[test]
fn unique_callbacks_of_requests_never_overlap() {
    explore(|| {
        let ends = compete(DeferredCallback::unique);
        assert!(ends.contains(&Ended::Ran), "{ends:?}");
    });
}

/// A lost wake-up of a queued callback is a deadlock.
#[test]
fn coalesced_callbacks_of_requests_run_in_turn() {
    explore(|| {
        let ends = compete(DeferredCallback::coalesce);
        let runs = ends.iter().filter(|end| **end == Ended::Ran).count();
        // The first one, and at least one after it.
        assert!(runs >= 2, "{ends:?}");
    });
}

/// A permit that wakes no waiter, or the wrong one, is a deadlock.
#[test]
fn waiting_requests_get_permits() {
    explore(|| {
        let record =
            RunRecord::with(|options| options.max_pending = Some(Arc::new(PermitPool::new(2))));
        let threads = [(); THREADS].map(|()| {
            let record = record.clone();
            thread::spawn(move || {
                let pool = record.options.max_pending.clone().expect("a limit");
                let mut waiting = Waiting::default();
                let permit = block_on(poll_fn(|cx| pool.poll_permit(&mut waiting, cx)));
                let (guard, collection) = record.request_with(permit);
                drop(record.defer(&collection));
                drop(collection);
                succeed(guard);
            })
        });
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(record.close().ends, [Ended::Ran; THREADS]);
    });
}

/// Each thread moves its work from one store to the other, so that a scan of one after the other may
/// miss it.
#[test]
fn drain_of_moving_work_ends_when_idle() {
    explore(|| {
        let stores = [0, 1].map(|_| Arc::new(Store::default()));
        let drain = Drain::default();
        for store in &stores {
            drain.add(store);
        }
        let ended = Arc::new(AtomicUsize::new(0));
        let threads: Vec<_> = (0..THREADS)
            .map(|number| {
                let (stores, ended) = (stores.clone(), ended.clone());
                let shard = number as u32 % 2;
                stores[0].handler_started_in(shard);
                thread::spawn(move || {
                    for (next, last) in [(1, 0), (0, 1)] {
                        stores[next].handler_started_in(shard);
                        stores[last].handler_ended(shard);
                    }
                    ended.fetch_add(1, AcqRel);
                    stores[0].handler_ended(shard);
                })
            })
            .collect();
        block_on(drain.wait_idle());
        assert_eq!(ended.fetch_add(0, AcqRel), THREADS, "idle too early");
        let unfinished: usize = stores.iter().map(|store| store.counts().unfinished()).sum();
        assert_eq!(unfinished, 0);
        for thread in threads {
            thread.join().unwrap();
        }
    });
}

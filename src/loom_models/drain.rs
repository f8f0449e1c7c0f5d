//! Drains: a drain ends only if all stores were idle at one moment.

use std::{pin::pin, sync::Arc, task::Poll};

use loom::{future::block_on, thread};

use super::{explore, explore_within, run_record::RunRecord};
use crate::{
    drain::{Drain, DrainSource},
    loom_models::run_record::succeed,
    scope::store::Store,
    sync::{AtomicBool, Ordering::SeqCst},
};

fn drain_of(stores: &[Arc<Store>]) -> Drain {
    let drain = Drain::default();
    for store in stores {
        drain.add(store);
    }
    drain
}

#[test]
fn drain_wakes_after_ends_in_two_shards() {
    explore_within(3, "ends in two shards while a drain waits", || {
        let store = Arc::new(Store::default());
        let drain = drain_of(&[store.clone()]);
        let threads = [0, 1].map(|shard| {
            let store = store.clone();
            store.handler_started_in(shard);
            thread::spawn(move || store.handler_ended(shard))
        });
        // A lost notification is a deadlock.
        block_on(drain.wait_idle());
        assert_eq!(store.counts().unfinished(), 0);
        for thread in threads {
            thread.join().unwrap();
        }
    });
}

/// Work in one store begins before the last work in the other ends, so there is always some left.
#[test]
fn work_moving_between_stores_is_never_idle() {
    explore_within(3, "work that moves between stores", || {
        let stores = [0, 1].map(|_| Arc::new(Store::default()));
        let is_last = Arc::new(AtomicBool::new(false));
        stores[1].handler_started_in(0);
        let worker = {
            let (stores, is_last) = (stores.clone(), is_last.clone());
            thread::spawn(move || {
                for (next, last) in [(0, 1), (1, 0)] {
                    stores[next].handler_started_in(0);
                    stores[last].handler_ended(0);
                }
                is_last.store(true, SeqCst);
                stores[1].handler_ended(0);
            })
        };
        let drain = drain_of(&stores);
        let is_idle = {
            let waiting = pin!(drain.wait_idle());
            let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
            waiting.poll(&mut cx) == Poll::Ready(())
        };
        if is_idle {
            assert!(
                is_last.load(SeqCst),
                "idle before the last handler has ended"
            );
        }
        worker.join().unwrap();
        block_on(drain.wait_idle());
    });
}

/// The drain must scan again at once, because no shard was unfinished in a scan, so none notifies it.
#[test]
fn work_between_two_scans_is_rescanned() {
    explore("work that begins and ends between two scans", || {
        let store = Arc::new(Store::default());
        let drain = drain_of(&[store.clone()]);
        let worker = thread::spawn(move || {
            store.handler_started_in(0);
            store.handler_ended(0);
        });
        // A drain that waits for a notification is a deadlock.
        block_on(drain.wait_idle());
        worker.join().unwrap();
    });
}

#[test]
fn count_never_exceeds_existing_work() {
    explore("counts while work moves between shards", || {
        let store = Arc::new(Store::default());
        store.handler_started_in(1);
        let worker = {
            let store = store.clone();
            thread::spawn(move || {
                store.handler_ended(1);
                store.handler_started_in(0);
                store.handler_ended(0);
            })
        };
        assert!(store.counts().unfinished() <= 1);
        worker.join().unwrap();
    });
}

#[test]
fn drain_waits_for_callbacks_of_a_scope() {
    explore_within(3, "a drain while a scope is decided and runs", || {
        let record = RunRecord::open();
        let (guard, collection) = record.request(None);
        drop(record.defer(&collection));
        let pusher = record.on_a_thread(&collection, |record, collection| {
            drop(record.defer(collection));
        });
        drop(collection);
        succeed(guard);
        pusher.join().unwrap();
        let drain = drain_of(&[record.options.store.clone()]);
        block_on(drain.wait_idle());
        assert_eq!(record.options.store.counts().unfinished(), 0);
        record.close().all_ran(2);
    });
}

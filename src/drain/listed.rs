//! The scopes of a layer that have callbacks.

use std::sync::{
    Mutex, MutexGuard, PoisonError, Weak,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use slab::Slab;

use super::tracker::Unfinished;

const LISTS: usize = 8;

/// A list of scopes in several parts: threads that list and delist at the same time rarely meet.
#[derive(Default)]
pub(super) struct Listed([List; LISTS]);

/// On cache lines of its own, or threads would meet there.
#[derive(Default)]
#[repr(align(128))]
struct List(Mutex<Slab<Weak<dyn Unfinished>>>);

impl List {
    fn lock(&self) -> MutexGuard<'_, Slab<Weak<dyn Unfinished>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Listed {
    /// The key says where it is, to whoever takes it out, on whichever thread.
    pub(super) fn insert(&self, scope: Weak<dyn Unfinished>) -> usize {
        let list = list_of_this_thread();
        self.0[list].lock().insert(scope) * LISTS + list
    }

    pub(super) fn remove(&self, key: usize) {
        let removed = self.0[key % LISTS].lock().try_remove(key / LISTS);
        drop(removed);
    }

    pub(super) fn all(&self) -> Vec<Weak<dyn Unfinished>> {
        let mut all = Vec::new();
        for list in &self.0 {
            all.extend(list.lock().iter().map(|(_, scope)| scope.clone()));
        }
        all
    }
}

fn list_of_this_thread() -> usize {
    static THREADS: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static LIST: usize = THREADS.fetch_add(1, Relaxed) % LISTS;
    }
    // A thread that is about to end has none any more.
    LIST.try_with(|list| *list).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::drain::report::UnfinishedCallback;

    struct Nothing;

    impl Unfinished for Nothing {
        fn unfinished(&self) -> Vec<UnfinishedCallback> {
            Vec::new()
        }
    }

    #[test]
    fn what_was_listed_by_any_thread_is_there_until_any_other_takes_it_out() {
        let listed = Arc::new(Listed::default());
        let keys: Vec<usize> = (0..2 * LISTS)
            .map(|_| {
                let listed = listed.clone();
                let lists = move || {
                    let scope: Weak<dyn Unfinished> = Weak::<Nothing>::new();
                    [listed.insert(scope.clone()), listed.insert(scope)]
                };
                std::thread::spawn(lists).join().unwrap()
            })
            .flatten()
            .collect();
        assert_eq!(listed.all().len(), 4 * LISTS);
        for (taken, key) in keys.into_iter().enumerate() {
            assert_eq!(listed.all().len(), 4 * LISTS - taken);
            listed.remove(key);
        }
        assert!(listed.all().is_empty());
    }
}

//! The options of a layer, shared by all of its scopes and services.
//!
//! Each request makes and drops some of these, so that one reference count would be written to by
//! all threads, four times a request. So there is a copy of the options for each shard.

use std::sync::Arc;

use super::options::Options;
use crate::drain::shard_number::{SHARDS, ShardNumber};

/// What a layer has.
#[derive(Clone)]
pub(crate) struct SharedOptions(Arc<[Arc<Options>; SHARDS]>);

impl SharedOptions {
    pub(crate) fn new(options: &Options) -> Self {
        let copy = |shard| {
            Arc::new(Options {
                shard,
                ..options.clone()
            })
        };
        Self(Arc::new(ShardNumber::each(copy)))
    }

    #[inline]
    pub(crate) fn of_this_thread(&self) -> &Arc<Options> {
        ShardNumber::of_this_thread().of(&self.0)
    }
}

/// What a service has.
pub(crate) enum ServiceOptions {
    /// It was made by a layer, and may serve on any thread.
    All(SharedOptions),
    /// It was cloned on a thread, most often to serve one request there.
    OfOneThread(Arc<Options>),
}

impl ServiceOptions {
    #[inline]
    pub(crate) fn get(&self) -> &Arc<Options> {
        match self {
            Self::All(options) => options.of_this_thread(),
            Self::OfOneThread(options) => options,
        }
    }

    /// For a service that may serve wherever this one may.
    #[cfg(feature = "serve")]
    pub(crate) fn share(&self) -> Self {
        match self {
            Self::All(options) => Self::All(options.clone()),
            Self::OfOneThread(options) => Self::OfOneThread(options.clone()),
        }
    }
}

impl Clone for ServiceOptions {
    #[inline]
    fn clone(&self) -> Self {
        Self::OfOneThread(self.get().clone())
    }
}

#[cfg(all(test, not(axum_defer_loom)))]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn services_that_are_cloned_on_threads_have_copies_of_one_tracker() {
        let service = ServiceOptions::All(SharedOptions::new(&Options::default()));
        let on_a_thread = |_| thread::scope(|scope| scope.spawn(|| service.clone()).join());
        let clones: Vec<_> = (0..2 * SHARDS)
            .map(on_a_thread)
            .map(Result::unwrap)
            .collect();
        let first = clones[0].get();
        assert!(clones.iter().any(|clone| !Arc::ptr_eq(clone.get(), first)));
        for clone in &clones {
            assert!(Arc::ptr_eq(&clone.get().tracker, &first.tracker));
            assert!(Arc::ptr_eq(clone.clone().get(), clone.get()));
        }
    }
}

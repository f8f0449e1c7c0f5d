//! Which threads share what: few enough that they rarely meet.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// The models have time for two.
pub(crate) const SHARDS: usize = if cfg!(axum_defer_loom) { 2 } else { 8 };

/// One of the [`SHARDS`].
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ShardNumber(usize);

impl ShardNumber {
    /// The one of the calling thread; what is counted there may be counted out on another one.
    #[inline]
    pub(crate) fn of_this_thread() -> Self {
        static THREADS: AtomicUsize = AtomicUsize::new(0);
        thread_local! {
            static NUMBER: ShardNumber = ShardNumber(THREADS.fetch_add(1, Relaxed) % SHARDS);
        }
        // A thread that is about to end has none any more.
        NUMBER.try_with(|number| *number).unwrap_or_default()
    }

    /// What there is of something in each shard.
    pub(crate) fn each<T>(mut make: impl FnMut(Self) -> T) -> [T; SHARDS] {
        std::array::from_fn(|number| make(Self(number)))
    }

    #[inline]
    pub(crate) fn of<T>(self, each: &[T; SHARDS]) -> &T {
        &each[self.0]
    }

    #[cfg(test)]
    pub(crate) fn number(number: usize) -> Self {
        Self(number % SHARDS)
    }
}

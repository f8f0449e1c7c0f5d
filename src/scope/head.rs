//! Whether the head of the response is still held back.
//!
//! ```text
//!              wait_for                       released
//!   ┌──────┐  the first     ┌────────────┐  none is left    ┌──────────┐
//!   │ open │───────────────▶│ waited for │─────────────────▶│ released │
//!   └──────┘                └────────────┘                  └──────────┘
//!       │                                                        ▲
//!       └────────────────────────────────────────────────────────┘
//!                 release: nobody has asked it to wait
//! ```
//!
//! One atomic beside the scope's lock: a request that asks nothing to run before its response
//! takes no lock for it. `wait_for` and `released` are called under that lock, so that whoever
//! finds the head waited for finds the callback in the queue, too.

use crate::sync::{
    AtomicU64,
    Ordering::{Relaxed, SeqCst},
};

const OPEN: u64 = 0;
const WAITED_FOR: u64 = 1;
const RELEASED: u64 = 2;

#[derive(Default)]
pub(super) struct Head(AtomicU64);

impl Head {
    /// Has it wait for the callbacks of the first phase; `false` when it is too late.
    pub(super) fn wait_for(&self) -> bool {
        let waits = self.0.compare_exchange(OPEN, WAITED_FOR, SeqCst, SeqCst);
        waits != Err(RELEASED)
    }

    /// Lets it go unless it has to wait; whether it has to.
    pub(super) fn release(&self) -> bool {
        // Asked again when the scope is decided, of a head that has gone long ago.
        if self.0.load(SeqCst) == RELEASED {
            return false;
        }
        let released = self.0.compare_exchange(OPEN, RELEASED, SeqCst, SeqCst);
        released == Err(WAITED_FOR)
    }

    /// The same for who is alone with it: nobody can ask it to wait meanwhile.
    #[inline]
    pub(super) fn release_alone(&self) -> bool {
        match self.0.load(Relaxed) {
            OPEN => {
                self.0.store(RELEASED, Relaxed);
                false
            }
            state => state == WAITED_FOR,
        }
    }

    /// Nothing is left for it to wait for.
    pub(super) fn released(&self) {
        self.0.store(RELEASED, SeqCst);
    }
}

//! How much of the processors this process has had.

use std::{fs, time::Duration};

/// What the threads of this process have had of the processors (Linux; elsewhere nothing).
pub(crate) fn processor_time() -> Duration {
    let Ok(threads) = fs::read_dir("/proc/self/task") else {
        return Duration::ZERO;
    };
    threads
        .filter_map(|thread| {
            let figures = fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
            let nanoseconds = figures.split_whitespace().next()?.parse().ok()?;
            Some(Duration::from_nanos(nanoseconds))
        })
        .sum()
}

//! The CPU time of this process.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

pub(crate) fn process() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(
        u64::try_from(time.tv_sec).expect("a positive time"),
        u32::try_from(time.tv_nsec).expect("less than a second"),
    )
}

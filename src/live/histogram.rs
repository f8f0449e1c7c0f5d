//! How durations are distributed: percentiles within an eighth of their power of two.

use std::time::Duration;

/// Up to 2^37 microseconds, a day and a half; longer ones are counted there.
const HIGHEST: u32 = 36;
const BUCKETS: usize = ((HIGHEST - 2) * 8 + 8) as usize;

#[derive(Clone)]
pub(super) struct Histogram {
    buckets: Box<[u32; BUCKETS]>,
    count: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            buckets: Box::new([0; BUCKETS]),
            count: 0,
        }
    }
}

impl Histogram {
    pub(super) fn add(&mut self, duration: Duration) {
        let micros =
            duration.as_secs().min(1 << 20) * 1_000_000 + u64::from(duration.subsec_micros());
        let bucket = &mut self.buckets[bucket_of(micros)];
        *bucket = bucket.saturating_add(1);
        self.count += 1;
    }

    /// The duration that this share of all does not exceed; zero if there are none.
    pub(super) fn percentile(&self, percent: u64) -> Duration {
        let rank = (self.count * percent).div_ceil(100).max(1);
        let mut seen = 0;
        for (bucket, &count) in self.buckets.iter().enumerate() {
            seen += u64::from(count);
            if seen >= rank {
                return Duration::from_micros(lowest_in(bucket));
            }
        }
        Duration::ZERO
    }
}

/// One each up to 7, then eight for each power of two.
fn bucket_of(micros: u64) -> usize {
    if micros < 8 {
        return micros as usize;
    }
    let power = 63 - micros.leading_zeros();
    if power > HIGHEST {
        return BUCKETS - 1;
    }
    let eighth = (micros >> (power - 3)) & 7;
    ((power - 2) * 8) as usize + eighth as usize
}

fn lowest_in(bucket: usize) -> u64 {
    if bucket < 8 {
        return bucket as u64;
    }
    let power = (bucket / 8 + 2) as u32;
    (8 + (bucket % 8) as u64) << (power - 3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_duration_is_in_the_bucket_that_begins_below_it() {
        for micros in (0..5_000).chain((0..HIGHEST).map(|power| (1 << power) + 1)) {
            let lowest = lowest_in(bucket_of(micros));
            assert!(
                lowest <= micros && micros - lowest <= micros / 8,
                "{micros}"
            );
        }
        assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn percentiles_are_those_of_what_was_added() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.percentile(50), Duration::ZERO);
        for micros in 1..=100 {
            histogram.add(Duration::from_micros(micros * 1024));
        }
        for percent in [50, 95, 99] {
            let exact = percent * 1024;
            let told = histogram.percentile(percent).as_micros() as u64;
            assert!(
                told <= exact && exact - told <= exact / 8,
                "{percent}: {told}"
            );
        }
    }
}

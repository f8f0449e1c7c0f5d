//! Percentiles of durations.

use std::time::Duration;

/// The power of two of the last buckets: 2^36 to 2^37 microseconds, up to 38 hours.
const HIGHEST: u32 = 36;
const BUCKETS: usize = ((HIGHEST - 2) * 8 + 8) as usize;

/// A histogram of durations. It has one bucket per microsecond up to 7, then eight per power of two.
#[derive(Clone)]
pub(crate) struct Histogram {
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
    pub(crate) fn add(&mut self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let bucket = &mut self.buckets[bucket_of(micros)];
        *bucket = bucket.saturating_add(1);
        self.count += 1;
    }

    /// Returns the 50th, 95th, and 99th percentile.
    pub(crate) fn percentiles(&self) -> [Duration; 3] {
        [50, 95, 99].map(|percent| self.percentile(percent))
    }

    /// Returns the lower bound of the bucket that has the percentile. Zero if the histogram is empty.
    fn percentile(&self, percent: u64) -> Duration {
        let rank = (self.count * percent).div_ceil(100).max(1);
        let mut seen = 0;
        for (bucket, &count) in self.buckets.iter().enumerate() {
            seen += u64::from(count);
            if seen >= rank {
                return Duration::from_micros(lower_bound(bucket));
            }
        }
        Duration::ZERO
    }
}

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

fn lower_bound(bucket: usize) -> u64 {
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
    fn lower_bound_is_within_an_eighth() {
        for micros in (0..5_000).chain((0..HIGHEST).map(|power| (1 << power) + 1)) {
            let lowest = lower_bound(bucket_of(micros));
            assert!(
                lowest <= micros && micros - lowest <= micros / 8,
                "{micros}"
            );
        }
        assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn percentile_is_within_an_eighth() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.percentile(50), Duration::ZERO);
        for micros in 1..=100 {
            histogram.add(Duration::from_micros(micros * 1024));
        }
        for percent in [50, 95, 99] {
            let exact = percent * 1024;
            let shown = histogram.percentile(percent).as_micros() as u64;
            assert!(
                shown <= exact && exact - shown <= exact / 8,
                "{percent}: {shown}"
            );
        }
    }
}

//! How many ended lately: what a sparkline shows.

/// A sparkline is so many bars of so many seconds.
pub(super) const BARS: usize = 60;
pub(super) const BAR_SECONDS: u64 = 5;

/// A bar for each few seconds.
#[derive(Clone, Default)]
pub(super) struct Recent {
    ended: Vec<[u32; 2]>,
    /// The number of the last bar, counted from the beginning.
    last: u64,
}

impl Recent {
    pub(super) fn add(&mut self, bar: u64, failed: bool) {
        if bar != self.last || self.ended.is_empty() {
            self.advance(bar);
        }
        let bar = &mut self.ended[(self.last % BARS as u64) as usize];
        bar[usize::from(failed)] += 1;
    }

    #[cold]
    fn advance(&mut self, bar: u64) {
        if self.ended.is_empty() {
            self.ended = vec![[0; 2]; BARS];
            self.last = bar;
        }
        let passed = bar.saturating_sub(self.last).min(BARS as u64);
        self.last = self.last.max(bar);
        for emptied in 0..passed {
            self.ended[((self.last - emptied) % BARS as u64) as usize] = [0; 2];
        }
    }

    /// Those that ended well and those that failed, the oldest first.
    pub(super) fn bars(&self, now: u64) -> Vec<[u32; 2]> {
        if self.ended.is_empty() {
            return vec![[0; 2]; BARS];
        }
        let mut recent = self.clone();
        recent.advance(now);
        let first = recent.last + 1;
        let bar = |number: u64| recent.ended[(number % BARS as u64) as usize];
        (first..first + BARS as u64).map(bar).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_move_on_with_time() {
        let mut recent = Recent::default();
        recent.add(7, false);
        recent.add(9, true);
        let bars = recent.bars(10);
        assert_eq!(bars.len(), BARS);
        assert_eq!(bars[BARS - 4..], [[1, 0], [0, 0], [0, 1], [0, 0]]);
        assert!(recent.bars(500).iter().all(|bar| *bar == [0, 0]));
    }
}

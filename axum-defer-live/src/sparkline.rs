//! The number of callbacks that ended in the last five minutes, drawn as bars.

use std::fmt::Write;

const BARS: usize = 60;
pub(crate) const BAR_SECONDS: u64 = 5;

/// The successes and failures in an interval of [`BAR_SECONDS`].
type Bar = [u32; 2];

/// A ring of the last [`BARS`] bars.
#[derive(Clone, Default)]
pub(crate) struct Sparkline {
    bars: Vec<Bar>,
    /// The number of the newest bar, counted from the start of the record.
    newest: u64,
}

impl Sparkline {
    pub(crate) fn add(&mut self, bar: u64, failed: bool) {
        self.advance(bar);
        let newest = &mut self.bars[(self.newest % BARS as u64) as usize];
        newest[usize::from(failed)] += 1;
    }

    fn advance(&mut self, bar: u64) {
        if self.bars.is_empty() {
            self.bars = vec![[0; 2]; BARS];
            self.newest = bar;
        }
        let passed = bar.saturating_sub(self.newest).min(BARS as u64);
        self.newest = self.newest.max(bar);
        for cleared in 0..passed {
            self.bars[((self.newest - cleared) % BARS as u64) as usize] = [0; 2];
        }
    }

    /// Returns all bars, oldest first.
    fn bars(&self, now: u64) -> Vec<Bar> {
        let mut recent = self.clone();
        recent.advance(now);
        let oldest = (recent.newest + 1) % BARS as u64;
        recent.bars.rotate_left(oldest as usize);
        recent.bars
    }
}

/// Draws the bars at the time of bar `now`.
pub(crate) fn svg(sparkline: &Sparkline, now: u64) -> String {
    let bars = sparkline.bars(now);
    let highest = bars.iter().map(|[ok, failed]| ok + failed).max();
    let highest = f64::from(highest.unwrap_or(0).max(1));
    let (mut ran, mut failures) = (0_u64, 0_u64);
    let mut rects = String::new();
    for (index, [ok, failed]) in bars.iter().enumerate() {
        ran += u64::from(ok + failed);
        failures += u64::from(*failed);
        let mut top = 20.0_f64;
        for (class, count) in [("error", *failed), ("ok", *ok)] {
            if count > 0 {
                let height = (f64::from(count) / highest * 20.0).max(1.0);
                top = (top - height).max(0.0);
                let x = index * 2;
                let _ = write!(
                    rects,
                    "<rect class=\"{class}\" x=\"{x}\" y=\"{top:.1}\" width=\"1.6\" height=\"{height:.1}\"/>"
                );
            }
        }
    }
    format!(
        "<svg class=\"spark\" viewBox=\"0 0 120 20\" preserveAspectRatio=\"none\" role=\"img\" \
         aria-label=\"{ran} in the last 5 minutes, {failures} failed\">{rects}</svg>"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_move_with_time() {
        let mut sparkline = Sparkline::default();
        assert_eq!(sparkline.bars(3), vec![[0; 2]; BARS]);
        sparkline.add(7, false);
        sparkline.add(9, true);
        let bars = sparkline.bars(10);
        assert_eq!(bars.len(), BARS);
        assert_eq!(bars[BARS - 4..], [[1, 0], [0, 0], [0, 1], [0, 0]]);
        assert!(sparkline.bars(500).iter().all(|bar| *bar == [0, 0]));
    }
}

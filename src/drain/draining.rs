//! The layers that are drained together.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{asker::Asker, report::DrainReport, tally::Tally, tracker::Tracker};

/// What is drained together.
#[derive(Default)]
pub(crate) struct Draining {
    drained: Mutex<Drained>,
    /// A server without a graceful shutdown is not asked for one, and knows of no tracker.
    reports: bool,
}

/// The trackers, each with its tally when the counting began.
#[derive(Default)]
struct Drained {
    trackers: Vec<(Asker, Tally)>,
    has_started: bool,
}

impl Draining {
    pub(crate) fn that_reports() -> Self {
        Self {
            reports: true,
            ..Self::default()
        }
    }

    /// Adds a tracker, counting from now, unless it is known.
    ///
    /// Those that nobody else has any more are let go, so that an app which makes its layers per
    /// request does not pile them up; but not during a drain, which is about to report them.
    pub(crate) fn add(&self, tracker: &Arc<Tracker>) {
        if !self.reports {
            return;
        }
        let mut drained = self.lock();
        let Drained {
            trackers,
            has_started,
        } = &mut *drained;
        let known = |(known, _): &(Asker, Tally)| Arc::ptr_eq(known.tracker(), tracker);
        if !trackers.iter().any(known) {
            trackers.retain(|(known, _)| *has_started || Arc::strong_count(known.tracker()) > 1);
            trackers.push((Asker::new(tracker.clone()), tracker.tally()));
        }
    }

    /// Counts from now.
    #[cfg(feature = "serve")]
    pub(crate) fn start(&self) {
        let mut drained = self.lock();
        drained.has_started = true;
        for (asker, tally) in &mut drained.trackers {
            *tally = asker.tracker().tally();
        }
    }

    pub(crate) async fn wait_idle(&self) {
        // A request that is still driven may come to a layer that was not known before.
        for index in 0.. {
            let tracker = match self.lock().trackers.get(index) {
                Some((asker, _)) => asker.tracker().clone(),
                None => return,
            };
            tracker.wait_idle().await;
        }
    }

    pub(crate) fn report(&self) -> DrainReport {
        let mut report = DrainReport::default();
        for (asker, start) in &self.lock().trackers {
            let tracker = asker.tracker();
            let now = tracker.tally();
            report.ran += now.ran - start.ran;
            report.failed += now.failed - start.failed;
            report.skipped += now.skipped - start.skipped;
            report.lost += now.lost - start.lost;
            // First, as what ends meanwhile is in no list any more.
            let left = tracker.callbacks();
            let unfinished = tracker.unfinished();
            report.unfinished_unlisted += left.saturating_sub(unfinished.len()) as u64;
            report.unfinished.extend(unfinished);
            report.unfinished_handlers += tracker.held() as u64;
        }
        report
    }

    fn lock(&self) -> MutexGuard<'_, Drained> {
        self.drained.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drain::{shard_number::ShardNumber, tally::End};

    #[test]
    fn trackers_that_nobody_has_any_more_do_not_pile_up_before_a_drain() {
        let draining = Draining::that_reports();
        let kept = Arc::new(Tracker::default());
        draining.add(&kept);
        for _ in 0..100 {
            draining.add(&Arc::new(Tracker::default()));
        }
        draining.add(&kept);
        assert!(draining.lock().trackers.len() <= 2);

        draining.lock().has_started = true;
        let reported = Arc::new(Tracker::default());
        draining.add(&reported);
        let shard = ShardNumber::number(0);
        reported.registered(shard);
        reported.dropped(shard, End::Skipped, false);
        drop(reported);
        draining.add(&Arc::new(Tracker::default()));
        assert_eq!(draining.report().skipped, 1);
    }

    #[test]
    fn a_report_counts_all_trackers_from_the_start_of_the_drain() {
        let both = [(); 2].map(|()| Arc::new(Tracker::default()));
        let end = |times: usize| {
            let ends = [End::Ran, End::Failed, End::Skipped, End::Lost];
            for (more, end) in ends.into_iter().enumerate() {
                for tracker in both.iter().cycle().take(2 * (times + more)) {
                    let shard = ShardNumber::number(times + more);
                    tracker.registered(shard);
                    tracker.dropped(shard, end, false);
                }
            }
        };
        let counts = |report: &DrainReport| {
            assert_eq!(report.is_complete(), report.lost == 0);
            [report.ran, report.failed, report.skipped, report.lost]
        };
        let draining = Draining::that_reports();
        end(1);
        both.iter().for_each(|tracker| draining.add(tracker));
        assert_eq!(counts(&draining.report()), [0; 4]);
        end(2);
        assert_eq!(counts(&draining.report()), [4, 6, 8, 10]);

        both.iter()
            .for_each(|tracker| tracker.hold(ShardNumber::number(5)));
        let report = draining.report();
        assert_eq!(report.unfinished_handlers, 2);
        assert!(!report.is_complete());
        assert_eq!(
            report.to_string(),
            "deferred callbacks while draining: 4 ran, 6 failed, 8 skipped, 10 lost, 0 unfinished; \
             2 handlers unfinished"
        );
    }
}

//! Who can ask a tracker what is unfinished.

use std::sync::Arc;

use super::tracker::Tracker;

/// As long as there is one, scopes that have callbacks are listed; where nobody can ask, they need
/// not be.
///
/// A layer is one, since it gives out handles; so are those, and a server that drains.
pub(crate) struct Asker(Arc<Tracker>);

impl Asker {
    pub(crate) fn new(tracker: Arc<Tracker>) -> Self {
        tracker.asker_comes();
        Self(tracker)
    }

    pub(crate) fn tracker(&self) -> &Arc<Tracker> {
        &self.0
    }
}

impl Clone for Asker {
    fn clone(&self) -> Self {
        Self::new(self.0.clone())
    }
}

impl Drop for Asker {
    fn drop(&mut self) {
        self.0.asker_goes();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        defer::{defer, scope},
        drain::draining::Draining,
        scope::options::Options,
    };

    #[test]
    fn who_drains_is_one_if_they_report() {
        let tracker = Arc::new(Tracker::default());
        Draining::default().add(&tracker);
        assert!(!tracker.can_be_asked());
        let draining = Draining::that_reports();
        draining.add(&tracker);
        assert!(tracker.can_be_asked());
        drop(draining);
        assert!(!tracker.can_be_asked());
    }

    #[tokio::test]
    async fn a_scope_is_listed_only_where_somebody_can_ask() {
        for is_asked in [true, false] {
            let options = Arc::new(Options::default());
            let asker = is_asked.then(|| Asker::new(options.tracker.clone()));
            let tracker = options.tracker.clone();
            let unit = async move {
                for registered in 0..3 {
                    let listed = if is_asked { registered } else { 0 };
                    assert_eq!(tracker.unfinished().len(), listed);
                    assert_eq!(tracker.callbacks(), registered);
                    defer(async {});
                }
            };
            scope::run(options, unit).await;
            drop(asker);
        }
    }
}

//! The callbacks of a scope that are running now, for those who ask what is not finished.

use std::{borrow::Cow, panic::Location, sync::Arc};

use crate::{
    callback::entry::Header, clock::Instant, drain::report::UnfinishedCallback,
    observe::scope_info::ScopeInfo,
};

/// Callbacks run one at a time unless the layer is concurrent, so one place needs no allocation.
#[derive(Default)]
pub(crate) struct InProgress {
    one: Option<Started>,
    others: Vec<Started>,
}

/// Less than an [`UnfinishedCallback`], which says of itself that it runs: every scope has room
/// for one.
struct Started {
    id: u64,
    name: Option<Cow<'static, str>>,
    location: &'static Location<'static>,
    since: Option<Instant>,
}

impl InProgress {
    #[inline]
    pub(crate) fn insert(&mut self, header: &Header) {
        let started = Started {
            id: header.id,
            name: header.name.clone(),
            location: header.location,
            since: header.observed().map(|_| Instant::now()),
        };
        match self.one {
            None => self.one = Some(started),
            Some(_) => self.others.push(started),
        }
    }

    #[inline]
    pub(crate) fn remove(&mut self, id: u64) {
        if self.one.as_ref().is_some_and(|one| one.id == id) {
            self.one = None;
        } else {
            self.others.retain(|other| other.id != id);
        }
    }

    pub(crate) fn unfinished(
        &self,
        scope: Option<&Arc<ScopeInfo>>,
    ) -> impl Iterator<Item = UnfinishedCallback> {
        self.one
            .iter()
            .chain(&self.others)
            .map(move |started| UnfinishedCallback {
                name: started.name.clone(),
                location: started.location,
                running: true,
                age: started.since.map(|since| since.elapsed()),
                scope: scope.cloned(),
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::phase::Phase;

    fn ids(running: &InProgress) -> Vec<Cow<'static, str>> {
        running
            .unfinished(None)
            .filter_map(|callback| callback.name)
            .collect()
    }

    #[test]
    fn each_of_those_that_run_side_by_side_is_named_until_it_ends() {
        let mut running = InProgress::default();
        let start = |running: &mut InProgress, id: u64| {
            let mut header = Header::new(Location::caller(), Phase::After);
            header.id = id;
            header.name = Some(id.to_string().into());
            running.insert(&header);
        };
        for id in 0..4 {
            start(&mut running, id);
        }
        assert_eq!(ids(&running), ["0", "1", "2", "3"]);
        running.remove(2);
        assert_eq!(ids(&running), ["0", "1", "3"]);
        running.remove(0);
        assert_eq!(ids(&running), ["1", "3"]);
        start(&mut running, 4);
        running.remove(1);
        running.remove(3);
        assert_eq!(ids(&running), ["4"]);
        running.remove(4);
        assert_eq!(ids(&running), [""; 0]);
    }
}

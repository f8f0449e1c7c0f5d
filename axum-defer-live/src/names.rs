//! Statistics by callback name, for a bounded number of names.

use std::{collections::HashMap, panic::Location, sync::Arc};

use crate::{
    event::{CallbackData, EndEvent},
    histogram::Histogram,
    sparkline::Sparkline,
};

/// The statistics of one name, or of one location for callbacks without a name.
#[derive(Clone)]
pub(crate) struct NameStats {
    pub(crate) label: Arc<str>,
    pub(crate) is_named: bool,
    pub(crate) location: Option<&'static Location<'static>>,
    pub(crate) ran: u64,
    pub(crate) failed: u64,
    pub(crate) did_not_run: u64,
    pub(crate) queued: Histogram,
    pub(crate) duration: Histogram,
    pub(crate) sparkline: Sparkline,
    /// The version of the record at the last change.
    pub(crate) changed: u64,
}

/// The index of the entry that counts all names beyond the limit.
const OTHER_NAMES: usize = 0;

pub(crate) struct Names {
    pub(crate) limit: usize,
    named: HashMap<Arc<str>, usize>,
    unnamed: HashMap<&'static Location<'static>, usize>,
    all: Vec<NameStats>,
}

impl Names {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            limit,
            named: HashMap::new(),
            unnamed: HashMap::new(),
            all: vec![NameStats::new("(other names)".into(), false, None)],
        }
    }

    pub(crate) fn all(&self) -> &[NameStats] {
        &self.all
    }

    /// Returns the index of the callback's entry, which is added if there is room.
    pub(crate) fn index(&mut self, callback: &CallbackData<'_>) -> usize {
        let location = callback.location;
        let known = match &callback.name {
            Some(name) => self.named.get(&**name),
            None => self.unnamed.get(location),
        };
        if let Some(&index) = known {
            return index;
        }
        let index = self.all.len();
        if index > self.limit {
            return OTHER_NAMES;
        }
        let label: Arc<str> = match &callback.name {
            Some(name) => (&**name).into(),
            None => location.to_string().into(),
        };
        if callback.name.is_some() {
            self.named.insert(label.clone(), index);
        } else {
            self.unnamed.insert(location, index);
        }
        let is_named = callback.name.is_some();
        self.all
            .push(NameStats::new(label, is_named, Some(location)));
        index
    }

    /// Returns the callback's name, shared with other callbacks of the entry.
    pub(crate) fn shared_name(
        &self,
        index: usize,
        callback: &CallbackData<'_>,
    ) -> Option<Arc<str>> {
        let name = callback.name.as_deref()?;
        Some(match index {
            OTHER_NAMES => name.into(),
            _ => self.all[index].label.clone(),
        })
    }

    pub(crate) fn ended(&mut self, index: usize, end: &EndEvent, bar: u64, version: u64) {
        let stats = &mut self.all[index];
        stats.changed = version;
        if !end.outcome.has_run() {
            stats.did_not_run += 1;
            return;
        }
        stats.ran += 1;
        stats.failed += u64::from(end.outcome.is_failure());
        if let Some(times) = end.times {
            stats.queued.add(times.queued);
            stats.duration.add(times.duration);
        }
        stats.sparkline.add(bar, end.outcome.is_failure());
    }
}

impl NameStats {
    fn new(label: Arc<str>, is_named: bool, location: Option<&'static Location<'static>>) -> Self {
        Self {
            label,
            is_named,
            location,
            ran: 0,
            failed: 0,
            did_not_run: 0,
            queued: Histogram::default(),
            duration: Histogram::default(),
            sparkline: Sparkline::default(),
            changed: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use axum_defer::Phase;
    use tokio::time::Instant;

    use super::*;
    use crate::event::RequestText;

    #[test]
    fn names_beyond_the_limit_share_one_entry() {
        let here = Location::caller();
        let callback = |name: Option<&'static str>| CallbackData {
            id: 1,
            name: name.map(Into::into),
            location: here,
            phase: Phase::After,
            scope: 1,
            started_at: Instant::now(),
            time_to_head: None,
            request: RequestText::default(),
        };
        let mut names = Names::new(2);
        assert_eq!(names.index(&callback(Some("a"))), 1);
        assert_eq!(names.index(&callback(None)), 2);
        assert_eq!(names.index(&callback(None)), 2);
        assert_eq!(names.index(&callback(Some("b"))), OTHER_NAMES);
        assert_eq!(names.index(&callback(Some("a"))), 1);
        let shared = names.shared_name(OTHER_NAMES, &callback(Some("b")));
        assert_eq!(shared.as_deref(), Some("b"));
    }
}

//! What is counted by name, of a bounded number of names.

use std::{collections::HashMap, panic::Location, sync::Arc, time::Duration};

use super::{end::End, histogram::Histogram, recent::Recent, text::cut};

/// Of a name, what is longer is cut.
pub(super) const NAME_BYTES: usize = 120;

/// One name, or of callbacks without one, the place where they were deferred.
#[derive(Clone)]
pub(super) struct ByName {
    pub(super) label: Arc<str>,
    pub(super) is_named: bool,
    pub(super) place: Option<&'static Location<'static>>,
    pub(super) ran: u64,
    pub(super) failed: u64,
    /// Skipped, cancelled, replaced, duplicates.
    pub(super) did_not_run: u64,
    pub(super) waited: Histogram,
    pub(super) took: Histogram,
    pub(super) recent: Recent,
    pub(super) changed: u64,
}

impl ByName {
    fn new(label: &str, is_named: bool, place: Option<&'static Location<'static>>) -> Self {
        Self {
            label: label.into(),
            is_named,
            place,
            ran: 0,
            failed: 0,
            did_not_run: 0,
            waited: Histogram::default(),
            took: Histogram::default(),
            recent: Recent::default(),
            changed: 0,
        }
    }
}

pub(super) struct Names {
    pub(super) limit: usize,
    /// What callbacks of a place were called last: mostly, they are always called the same.
    last_at: [LastAt; PLACES],
    places: HashMap<usize, u32>,
    names: HashMap<Arc<str>, u32>,
    pub(super) all: Vec<ByName>,
}

const PLACES: usize = 64;

#[derive(Clone, Copy, Default)]
struct LastAt {
    /// The address of the place.
    key: usize,
    index: u32,
}

/// Where names are counted that there is no room for.
const OTHERS: u32 = 0;

impl Names {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            last_at: [LastAt::default(); PLACES],
            places: HashMap::default(),
            names: HashMap::default(),
            all: vec![ByName::new("(other names)", false, None)],
        }
    }

    #[inline]
    pub(super) fn index(&mut self, name: Option<&str>, place: &'static Location<'static>) -> u32 {
        let key = std::ptr::from_ref(place) as usize;
        let last = self.last_at[key / align_of::<Location<'_>>() % PLACES];
        if last.key == key && self.is_called(last.index, name) {
            return last.index;
        }
        self.look_up(key, name, place)
    }

    #[inline]
    fn is_called(&self, index: u32, name: Option<&str>) -> bool {
        match (self.all.get(index as usize), name) {
            (Some(known), Some(name)) => known.is_named && *known.label == *name,
            (Some(known), None) => !known.is_named,
            (None, _) => false,
        }
    }

    #[cold]
    fn look_up(
        &mut self,
        key: usize,
        name: Option<&str>,
        place: &'static Location<'static>,
    ) -> u32 {
        let index = match name {
            Some(name) => {
                let name = cut(name, NAME_BYTES);
                match self.names.get(name) {
                    Some(&index) => index,
                    None => self.add(name, true, place),
                }
            }
            None => match self.places.get(&key) {
                Some(&index) => index,
                None => self.add_place(key, place),
            },
        };
        if index != OTHERS {
            self.last_at[key / align_of::<Location<'_>>() % PLACES] = LastAt { key, index };
        }
        index
    }

    /// The compiler may have put one place into several addresses.
    #[cold]
    fn add_place(&mut self, key: usize, place: &'static Location<'static>) -> u32 {
        let known = self
            .all
            .iter()
            .position(|by_name| !by_name.is_named && by_name.place == Some(place));
        let index = match known {
            Some(index) => index as u32,
            None => self.add(&place.to_string(), false, place),
        };
        self.places.insert(key, index);
        index
    }

    #[cold]
    fn add(&mut self, label: &str, is_named: bool, place: &'static Location<'static>) -> u32 {
        if self.all.len() > self.limit {
            return OTHERS;
        }
        let index = self.all.len() as u32;
        let by_name = ByName::new(label, is_named, Some(place));
        if is_named {
            self.names.insert(by_name.label.clone(), index);
        }
        self.all.push(by_name);
        index
    }

    /// The text of a name, shared with the others of that name where there is room.
    pub(super) fn text(&self, index: u32, name: &str) -> Arc<str> {
        match self.all.get(index as usize) {
            Some(by_name) if index != OTHERS => by_name.label.clone(),
            _ => cut(name, NAME_BYTES).into(),
        }
    }

    pub(super) fn ended(
        &mut self,
        index: u32,
        end: End,
        times: Option<(Duration, Duration)>,
        bar: u64,
        version: u64,
    ) {
        let Some(by_name) = self.all.get_mut(index as usize) else {
            return;
        };
        by_name.changed = version;
        if !end.has_run() {
            by_name.did_not_run += 1;
            return;
        }
        by_name.ran += 1;
        by_name.failed += u64::from(end.is_failure());
        if let Some((waited, took)) = times {
            by_name.waited.add(waited);
            by_name.took.add(took);
        }
        by_name.recent.add(bar, end.is_failure());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_without_room_are_counted_together() {
        let mut names = Names::new(2);
        let here = Location::caller();
        assert_eq!(names.index(Some("a"), here), 1);
        assert_eq!(names.index(None, here), 2);
        assert_eq!(names.index(None, here), 2);
        assert_eq!(names.index(Some("b"), here), OTHERS);
        assert_eq!(names.index(Some("a"), here), 1);
        assert_eq!(&*names.text(OTHERS, "b"), "b");
        assert_eq!(&*names.text(1, "a"), "a");
    }
}

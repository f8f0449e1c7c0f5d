//! What is counted by name, of a bounded number of names.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
    panic::Location,
    sync::Arc,
    time::Duration,
};

use super::{end::End, histogram::Histogram, text::cut};

/// Of a name, what is longer is cut.
pub(super) const NAME_BYTES: usize = 120;
/// A sparkline is so many bars of so many seconds.
pub(super) const BARS: usize = 60;
pub(super) const BAR_SECONDS: u64 = 5;

pub(super) type FastMap<K, V> = HashMap<K, V, BuildHasherDefault<Fast>>;

/// Quick, and no defence against chosen keys: all maps here are small.
#[derive(Default)]
pub(super) struct Fast(u64);

impl Fast {
    fn mix(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

impl Hasher for Fast {
    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 32)
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.mix(u64::from_le_bytes(word));
        }
    }

    fn write_u64(&mut self, word: u64) {
        self.mix(word);
    }

    fn write_usize(&mut self, word: usize) {
        self.mix(word as u64);
    }
}

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

/// How many ended lately, a bar for each few seconds.
#[derive(Clone, Default)]
pub(super) struct Recent {
    ended: Vec<[u32; 2]>,
    /// The number of the last bar, counted from the beginning.
    last: u64,
}

impl Recent {
    fn add(&mut self, bar: u64, failed: bool) {
        if self.ended.is_empty() {
            self.ended = vec![[0; 2]; BARS];
            self.last = bar;
        }
        self.advance(bar);
        let bar = &mut self.ended[(self.last % BARS as u64) as usize];
        bar[usize::from(failed)] += 1;
    }

    fn advance(&mut self, bar: u64) {
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

pub(super) struct Names {
    pub(super) limit: usize,
    places: FastMap<usize, u32>,
    names: FastMap<Arc<str>, u32>,
    pub(super) all: Vec<ByName>,
}

/// Where names are counted that there is no room for.
const OTHERS: u32 = 0;

impl Names {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            places: FastMap::default(),
            names: FastMap::default(),
            all: vec![ByName::new("(other names)", false, None)],
        }
    }

    pub(super) fn index(&mut self, name: Option<&str>, place: &'static Location<'static>) -> u32 {
        match name {
            Some(name) => {
                let name = cut(name, NAME_BYTES);
                match self.names.get(name) {
                    Some(&index) => index,
                    None => self.add(name, true, place),
                }
            }
            None => {
                let key = std::ptr::from_ref(place) as usize;
                match self.places.get(&key) {
                    Some(&index) => index,
                    None => self.add_place(key, place),
                }
            }
        }
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

//! The callbacks of one scope that have not run yet: their order and their names.
//!
//! Plain data. Whatever is taken out is handed to the caller, who drops it after the scope's
//! lock is released: dropping a callback runs user code.

use std::{
    borrow::Cow,
    collections::{HashMap, VecDeque},
};

use crate::callback::entry::{BoxEntry, Header};

/// Empty places are kept until they outnumber the callbacks by this many.
const COMPACT_ABOVE: usize = 32;

#[derive(Default)]
pub(crate) struct Queue {
    /// Ahead of the others, if it is there. Most requests defer one callback, which needs no
    /// allocation here.
    first: Option<Place>,
    /// Ordered by id. Taking one out of the middle leaves an empty place, so that it costs
    /// nothing to those behind it.
    others: VecDeque<Place>,
    occupied: usize,
    /// How many of them are not ready, because their handle is still being used.
    held: usize,
    /// While some are held: so many of the others, from the front, are not ready or not there.
    passed: usize,
    next_id: u64,
    /// Made with the first name: most requests have none.
    #[expect(
        clippy::box_collection,
        reason = "every scope has room for it, few need it"
    )]
    names: Option<Box<HashMap<Cow<'static, str>, u64>>>,
}

struct Place {
    id: u64,
    entry: Option<BoxEntry>,
}

impl Place {
    fn is_ready(&self) -> bool {
        self.entry.as_ref().is_some_and(|entry| !entry.header.held)
    }
}

/// What became of a callback that was to get a name.
pub(crate) enum Named {
    /// It is not waiting any more.
    TooLate,
    /// It has the name; the callback that had it before was registered earlier, and is out.
    Replaced(Option<BoxEntry>),
    /// It is out itself: the callback that has the name was registered later.
    Outranked(BoxEntry),
}

impl Queue {
    pub(crate) fn len(&self) -> usize {
        self.occupied
    }

    /// Whether there is one that may run.
    pub(crate) fn has_ready(&self) -> bool {
        self.occupied > self.held
    }

    pub(crate) fn push(&mut self, mut entry: BoxEntry) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        entry.as_mut().header_mut().id = id;
        let place = Place {
            id,
            entry: Some(entry),
        };
        if self.occupied == 0 {
            self.first = Some(place);
            self.others.clear();
        } else {
            self.others.push_back(place);
        }
        self.occupied += 1;
        id
    }

    /// Keeps a callback from being popped until it is released.
    pub(crate) fn hold(&mut self, id: u64) {
        if let Some(header) = self.header_mut(id) {
            if !std::mem::replace(&mut header.held, true) {
                if self.held == 0 {
                    self.passed = 0;
                }
                self.held += 1;
            }
        }
    }

    pub(crate) fn release(&mut self, id: u64) {
        if let Some(header) = self.header_mut(id) {
            if std::mem::take(&mut header.held) {
                self.held -= 1;
                self.passed = self
                    .others
                    .partition_point(|place| place.id < id)
                    .min(self.passed);
            }
        }
    }

    pub(crate) fn pop(&mut self) -> Option<BoxEntry> {
        if !self.has_ready() {
            return None;
        }
        if self.held > 0 {
            return self.pop_from_behind();
        }
        while let Some(place) = self.first.take().or_else(|| self.others.pop_front()) {
            if let Some(entry) = place.entry {
                self.vacated(&entry);
                return Some(entry);
            }
        }
        None
    }

    /// Some may be held, and those behind them need not wait.
    fn pop_from_behind(&mut self) -> Option<BoxEntry> {
        let ready = match &self.first {
            Some(first) if first.is_ready() => first.id,
            _ => {
                let unseen = self.others.range(self.passed..);
                self.passed += unseen.take_while(|place| !place.is_ready()).count();
                self.others.get(self.passed)?.id
            }
        };
        self.remove(ready)
    }

    pub(crate) fn header_mut(&mut self, id: u64) -> Option<&mut Header> {
        let entry = self.place_mut(id)?.entry.as_mut()?;
        Some(entry.as_mut().header_mut())
    }

    pub(crate) fn remove(&mut self, id: u64) -> Option<BoxEntry> {
        let entry = self.place_mut(id)?.entry.take()?;
        self.vacated(&entry);
        self.compact();
        Some(entry)
    }

    pub(crate) fn remove_named(&mut self, name: &str) -> Option<BoxEntry> {
        let id = *self.names.as_ref()?.get(name)?;
        self.remove(id)
    }

    pub(crate) fn rename(&mut self, id: u64, name: Cow<'static, str>) -> Named {
        let Some(header) = self.header_mut(id) else {
            return Named::TooLate;
        };
        let old_name = header.name.take();
        let names = self.names.get_or_insert_default();
        if let Some(old_name) = old_name {
            names.remove(&old_name);
        }
        let holder = names.get(&name).copied();
        if holder.is_some_and(|holder| holder > id) {
            return match self.remove(id) {
                Some(mut entry) => {
                    // It is out by this name, and reported by it.
                    entry.as_mut().header_mut().name = Some(name);
                    Named::Outranked(entry)
                }
                None => Named::TooLate,
            };
        }
        let replaced = holder.and_then(|holder| self.remove(holder));
        self.names.get_or_insert_default().insert(name.clone(), id);
        if let Some(header) = self.header_mut(id) {
            header.name = Some(name);
        }
        Named::Replaced(replaced)
    }

    pub(crate) fn contains(&self, name: &str) -> bool {
        self.names
            .as_ref()
            .is_some_and(|names| names.contains_key(name))
    }

    pub(crate) fn headers(&self) -> impl Iterator<Item = &Header> {
        self.first
            .iter()
            .chain(&self.others)
            .filter_map(|place| Some(&place.entry.as_ref()?.header))
    }

    fn place_mut(&mut self, id: u64) -> Option<&mut Place> {
        if self.first.as_ref().is_some_and(|first| first.id == id) {
            return self.first.as_mut();
        }
        // A handle is nearly always used right after its callback was registered.
        let index = match self.others.back() {
            Some(last) if last.id == id => self.others.len() - 1,
            _ => self
                .others
                .binary_search_by_key(&id, |place| place.id)
                .ok()?,
        };
        self.others.get_mut(index)
    }

    fn vacated(&mut self, entry: &BoxEntry) {
        self.occupied -= 1;
        self.held -= usize::from(entry.header.held);
        if let (Some(name), Some(names)) = (&entry.header.name, &mut self.names) {
            names.remove(name);
        }
    }

    /// A stream that registers the same name for hours must not pile up empty places.
    fn compact(&mut self) {
        if self.others.len() > 2 * self.occupied + COMPACT_ABOVE {
            self.others.retain(|place| place.entry.is_some());
            self.passed = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::panic::Location;

    use super::*;
    use crate::callback::{deferrable::Deferrable, entry::Entry};

    fn entry() -> BoxEntry {
        Box::pin(Entry::new(
            Header::new(Location::caller()),
            async {}.into_callback(),
        ))
    }

    fn names(queue: &Queue) -> Vec<&str> {
        queue
            .headers()
            .map(|header| header.name.as_deref().unwrap_or("-"))
            .collect()
    }

    #[test]
    fn the_later_registration_keeps_the_name_whichever_is_named_last() {
        let mut queue = Queue::default();
        let first = queue.push(entry());
        let second = queue.push(entry());
        queue.push(entry());
        assert!(matches!(
            queue.rename(first, "a".into()),
            Named::Replaced(None)
        ));
        assert!(matches!(
            queue.rename(second, "a".into()),
            Named::Replaced(Some(_))
        ));
        assert_eq!(names(&queue), ["a", "-"]);

        let mut queue = Queue::default();
        let first = queue.push(entry());
        let second = queue.push(entry());
        queue.rename(second, "a".into());
        let Named::Outranked(outranked) = queue.rename(first, "a".into()) else {
            panic!("the later one has the name");
        };
        assert_eq!(outranked.header.name.as_deref(), Some("a"));
        assert!(queue.contains("a"));
        assert_eq!(names(&queue), ["a"]);
        assert!(queue.header_mut(second).is_some());
    }

    #[test]
    fn a_new_name_frees_the_old_one_and_the_same_name_again_changes_nothing() {
        let mut queue = Queue::default();
        let id = queue.push(entry());
        queue.rename(id, "a".into());
        queue.rename(id, "a".into());
        assert_eq!((names(&queue), queue.len()), (vec!["a"], 1));
        queue.rename(id, "b".into());
        assert!(!queue.contains("a") && queue.contains("b"));
        assert!(queue.remove_named("a").is_none());
        assert!(queue.remove_named("b").is_some());
        assert!(!queue.contains("b"));
        assert!(matches!(queue.rename(id, "c".into()), Named::TooLate));
        assert!(!queue.contains("c"));
    }

    #[test]
    fn what_was_taken_out_frees_its_name() {
        let mut queue = Queue::default();
        let id = queue.push(entry());
        queue.rename(id, "a".into());
        assert!(queue.pop().is_some());
        assert!(!queue.contains("a"));
        assert_eq!(queue.len(), 0);
    }

    #[test]
    fn one_that_is_held_lets_those_behind_it_pass() {
        let mut queue = Queue::default();
        let held = queue.push(entry());
        let ready = queue.push(entry());
        queue.hold(held);
        queue.hold(held);
        assert_eq!(queue.pop().unwrap().header.id, ready);
        assert!(queue.pop().is_none() && !queue.has_ready());
        assert_eq!(queue.len(), 1);
        queue.release(held);
        queue.release(held);
        assert_eq!(queue.pop().unwrap().header.id, held);

        let held = queue.push(entry());
        queue.hold(held);
        assert!(queue.remove(held).is_some());
        let ready = queue.push(entry());
        assert_eq!(queue.pop().unwrap().header.id, ready);
    }

    #[test]
    fn the_first_that_is_ready_is_popped_whatever_is_held_and_taken_out() {
        // The same by looking through all of them each time, from the front.
        let mut model: Vec<(u64, bool)> = Vec::new();
        let mut queue = Queue::default();
        let mut random = 7_u64;
        for step in 0..20_000 {
            // For a while there are few of them, and often none.
            let pushes = if step / 1_000 % 2 == 0 { 3 } else { 1 };
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let dice = (random >> 33) as usize;
            let chosen = dice / 8 % model.len().max(1);
            match dice % 8 {
                push if push < pushes => model.push((queue.push(entry()), false)),
                3 => {
                    if let Some((id, held)) = model.get_mut(chosen) {
                        queue.hold(*id);
                        *held = true;
                    }
                }
                4 => {
                    if let Some((id, held)) = model.get_mut(chosen) {
                        queue.release(*id);
                        *held = false;
                    }
                }
                5 if !model.is_empty() => {
                    let (id, _) = model.remove(chosen);
                    assert_eq!(queue.remove(id).unwrap().header.id, id);
                }
                _ => {
                    let ready = model.iter().position(|(_, held)| !held);
                    let expected = ready.map(|index| model.remove(index).0);
                    assert_eq!(queue.pop().map(|entry| entry.header.id), expected);
                }
            }
            assert_eq!(queue.len(), model.len());
            assert_eq!(queue.has_ready(), model.iter().any(|(_, held)| !held));
        }
    }

    #[test]
    fn replacing_one_name_for_ever_takes_no_more_room() {
        let mut queue = Queue::default();
        let kept = queue.push(entry());
        for _ in 0..10_000 {
            let id = queue.push(entry());
            queue.rename(id, "heartbeat".into());
        }
        assert_eq!(queue.len(), 2);
        assert!(queue.others.len() <= 2 * 2 + COMPACT_ABOVE + 1);
        assert_eq!(names(&queue), ["-", "heartbeat"]);
        assert!(queue.header_mut(kept).is_some());
    }

    #[test]
    fn what_is_taken_out_of_the_middle_leaves_a_place_until_there_are_too_many() {
        let mut queue = Queue::default();
        let ids: Vec<_> = (0..101).map(|_| queue.push(entry())).collect();
        assert!(queue.pop().is_some() && queue.pop().is_some());
        assert_eq!(
            queue.others.len(),
            99,
            "what leaves at the front leaves no place"
        );
        queue.push(entry());
        for id in &ids[2..] {
            assert!(queue.remove(*id).is_some());
            let most = 2 * queue.len() + COMPACT_ABOVE;
            if most >= 100 {
                assert_eq!(queue.others.len(), 100, "nobody is moved for one place");
            } else {
                assert!(queue.others.len() <= most);
            }
        }
        assert!(queue.pop().is_some() && queue.pop().is_none());
    }
}

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
    occupied: usize,
    /// How many of them are not ready, because their handle is still being used.
    held: usize,
    next_id: u64,
    /// Made with the second callback, or the first name: every scope has room for this, and most
    /// need none of it.
    rest: Option<Box<Rest>>,
}

#[derive(Default)]
struct Rest {
    /// Ordered by id. Taking one out of the middle leaves an empty place, so that it costs
    /// nothing to those behind it.
    others: VecDeque<Place>,
    /// While some are held: so many of the others, from the front, are not ready or not there.
    passed: usize,
    names: HashMap<Cow<'static, str>, u64>,
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
    #[inline]
    pub(crate) fn has_ready(&self) -> bool {
        self.occupied > self.held
    }

    #[inline(always)]
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
            if let Some(rest) = &mut self.rest {
                rest.others.clear();
            }
        } else {
            self.rest_mut().others.push_back(place);
        }
        self.occupied += 1;
        id
    }

    /// Keeps a callback from being popped until it is released.
    pub(crate) fn hold(&mut self, id: u64) {
        if let Some(header) = self.header_mut(id) {
            if !std::mem::replace(&mut header.held, true) {
                if self.held == 0 {
                    if let Some(rest) = &mut self.rest {
                        rest.passed = 0;
                    }
                }
                self.held += 1;
            }
        }
    }

    pub(crate) fn release(&mut self, id: u64) {
        if let Some(header) = self.header_mut(id) {
            if std::mem::take(&mut header.held) {
                self.held -= 1;
                if let Some(rest) = &mut self.rest {
                    let index = rest.others.partition_point(|place| place.id < id);
                    rest.passed = rest.passed.min(index);
                }
            }
        }
    }

    #[inline]
    pub(crate) fn pop(&mut self) -> Option<BoxEntry> {
        if !self.has_ready() {
            return None;
        }
        if self.held > 0 {
            return self.pop_from_behind();
        }
        while let Some(place) = self.take_front() {
            if let Some(entry) = place.entry {
                self.vacated(&entry);
                return Some(entry);
            }
        }
        None
    }

    #[inline]
    fn take_front(&mut self) -> Option<Place> {
        match self.first.take() {
            Some(place) => Some(place),
            None => self.rest.as_mut()?.others.pop_front(),
        }
    }

    /// Some may be held, and those behind them need not wait.
    fn pop_from_behind(&mut self) -> Option<BoxEntry> {
        let ready = match &self.first {
            Some(first) if first.is_ready() => first.id,
            _ => {
                let Rest { others, passed, .. } = &mut **self.rest.as_mut()?;
                let unseen = others.range(*passed..);
                *passed += unseen.take_while(|place| !place.is_ready()).count();
                others.get(*passed)?.id
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
        let id = *self.rest.as_ref()?.names.get(name)?;
        self.remove(id)
    }

    pub(crate) fn rename(&mut self, id: u64, name: Cow<'static, str>) -> Named {
        let Some(header) = self.header_mut(id) else {
            return Named::TooLate;
        };
        let old_name = header.name.take();
        let names = &mut self.rest_mut().names;
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
        self.rest_mut().names.insert(name.clone(), id);
        if let Some(header) = self.header_mut(id) {
            header.name = Some(name);
        }
        Named::Replaced(replaced)
    }

    pub(crate) fn contains(&self, name: &str) -> bool {
        self.rest
            .as_ref()
            .is_some_and(|rest| rest.names.contains_key(name))
    }

    pub(crate) fn headers(&self) -> impl Iterator<Item = &Header> {
        let others = self.rest.iter().flat_map(|rest| &rest.others);
        self.first
            .iter()
            .chain(others)
            .filter_map(|place| Some(&place.entry.as_ref()?.header))
    }

    fn place_mut(&mut self, id: u64) -> Option<&mut Place> {
        if self.first.as_ref().is_some_and(|first| first.id == id) {
            return self.first.as_mut();
        }
        let others = &mut self.rest.as_mut()?.others;
        // A handle is nearly always used right after its callback was registered.
        let index = match others.back() {
            Some(last) if last.id == id => others.len() - 1,
            _ => others.binary_search_by_key(&id, |place| place.id).ok()?,
        };
        others.get_mut(index)
    }

    #[inline]
    fn vacated(&mut self, entry: &BoxEntry) {
        self.occupied -= 1;
        self.held -= usize::from(entry.header.held);
        if let (Some(name), Some(rest)) = (&entry.header.name, &mut self.rest) {
            rest.names.remove(name);
        }
    }

    /// A stream that registers the same name for hours must not pile up empty places.
    fn compact(&mut self) {
        let Some(rest) = &mut self.rest else { return };
        if rest.others.len() > 2 * self.occupied + COMPACT_ABOVE {
            rest.others.retain(|place| place.entry.is_some());
            rest.passed = 0;
        }
    }

    #[inline]
    fn rest_mut(&mut self) -> &mut Rest {
        self.rest.get_or_insert_default()
    }
}

#[cfg(test)]
mod tests;

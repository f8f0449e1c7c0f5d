//! The queue of one scope and phase: callbacks in the order of registration, by id and by name.

use std::collections::{BTreeMap, VecDeque};

use crate::callback::entry::{BoxEntry, Header, Name};

/// Empty slots are kept until they outnumber the callbacks by this many.
const COMPACT_ABOVE: usize = 32;

#[derive(Default)]
pub(super) struct Queue {
    /// Ahead of all others. Most scopes have one callback, which needs no further allocation.
    first: Option<Slot>,
    /// Callbacks in the queue, including held ones.
    len: usize,
    next_id: u64,
    names: BTreeMap<Name, u64>,
    rest: Option<Box<Rest>>,
}

#[derive(Default)]
struct Rest {
    /// Ordered by id. A callback that is removed or held leaves an empty slot, so that the others
    /// need not move.
    slots: VecDeque<Slot>,
    /// Callbacks that must not run before they are released.
    held: BTreeMap<u64, BoxEntry>,
}

struct Slot {
    id: u64,
    entry: Option<BoxEntry>,
}

/// A callback that was taken out of the queue to run.
pub(crate) struct Taken {
    /// Its number within its scope and phase.
    pub(crate) id: u64,
    pub(crate) entry: BoxEntry,
}

/// The result of [`Queue::rename`].
pub(super) enum Renamed {
    /// The callback is not in the queue.
    Missing,
    /// The callback has the name. An earlier callback that had it is returned.
    Named(Option<BoxEntry>),
    /// A callback that was registered later has the name, so the renamed one is removed.
    Superseded(BoxEntry),
}

impl Queue {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Returns `true` if a callback may run.
    #[inline]
    pub(super) fn has_ready(&self) -> bool {
        self.len > self.rest.as_ref().map_or(0, |rest| rest.held.len())
    }

    #[inline]
    pub(super) fn push(&mut self, entry: BoxEntry, held: bool) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        let mut slot = Slot {
            id,
            entry: Some(entry),
        };
        if self.len == 0 && !held {
            self.first = Some(slot);
            if let Some(rest) = &mut self.rest {
                rest.slots.clear();
            }
        } else {
            let rest = self.rest_mut();
            if held {
                rest.held.extend(slot.entry.take().map(|entry| (id, entry)));
            }
            rest.slots.push_back(slot);
        }
        self.len += 1;
        id
    }

    /// Keeps a callback from running until it is released.
    pub(super) fn hold(&mut self, id: u64) {
        if let Some(entry) = self.slot_mut(id).and_then(|slot| slot.entry.take()) {
            self.rest_mut().held.insert(id, entry);
        }
    }

    /// Returns a held callback to its position in the order of registration.
    pub(super) fn release(&mut self, id: u64) {
        let Some(rest) = &mut self.rest else { return };
        let Some(entry) = rest.held.remove(&id) else {
            return;
        };
        let entry = Some(entry);
        if let Some(first) = self.first.as_mut().filter(|first| first.id == id) {
            first.entry = entry;
            return;
        }
        match rest.slots.binary_search_by_key(&id, |slot| slot.id) {
            Ok(index) => rest.slots[index].entry = entry,
            // Its slot was at the front when a callback behind it was taken.
            Err(index) => rest.slots.insert(index, Slot { id, entry }),
        }
    }

    /// Takes the first callback that is not held.
    #[inline]
    pub(super) fn pop(&mut self) -> Option<Taken> {
        if !self.has_ready() {
            return None;
        }
        while let Some(slot) = self.take_front() {
            if let Some(entry) = slot.entry {
                self.removed(&entry);
                return Some(Taken { id: slot.id, entry });
            }
        }
        None
    }

    #[inline]
    fn take_front(&mut self) -> Option<Slot> {
        match self.first.take() {
            Some(slot) => Some(slot),
            None => self.rest.as_mut()?.slots.pop_front(),
        }
    }

    pub(super) fn header_mut(&mut self, id: u64) -> Option<&mut Header> {
        let is_held = |rest: &Rest| !rest.held.is_empty() && rest.held.contains_key(&id);
        let entry = if self.rest.as_deref().is_some_and(is_held) {
            self.rest.as_mut()?.held.get_mut(&id)?
        } else {
            self.slot_mut(id)?.entry.as_mut()?
        };
        Some(entry.as_mut().header_mut())
    }

    pub(super) fn remove(&mut self, id: u64) -> Option<BoxEntry> {
        let held = self.rest.as_mut().and_then(|rest| rest.held.remove(&id));
        let entry = match held {
            Some(entry) => entry,
            None => self.slot_mut(id)?.entry.take()?,
        };
        self.removed(&entry);
        self.compact();
        Some(entry)
    }

    pub(super) fn remove_named(&mut self, name: &str) -> Option<BoxEntry> {
        let id = *self.names.get(name)?;
        self.remove(id)
    }

    /// Names a callback. If two callbacks have the same name, the later registration stays.
    pub(super) fn rename(&mut self, id: u64, name: Name) -> Renamed {
        let Some(header) = self.header_mut(id) else {
            return Renamed::Missing;
        };
        if let Some(previous_name) = header.name.take() {
            self.names.remove(&previous_name);
        }
        let owner = self.names.get(&name).copied();
        if owner.is_some_and(|owner| owner > id) {
            return match self.remove(id) {
                Some(mut entry) => {
                    // Observers receive the name that it was replaced by.
                    entry.as_mut().header_mut().name = Some(name);
                    Renamed::Superseded(entry)
                }
                None => Renamed::Missing,
            };
        }
        let replaced = owner.and_then(|owner| self.remove(owner));
        self.names.insert(name.clone(), id);
        if let Some(header) = self.header_mut(id) {
            header.name = Some(name);
        }
        Renamed::Named(replaced)
    }

    pub(super) fn contains(&self, name: &str) -> bool {
        self.names.contains_key(name)
    }

    /// Returns the headers in the order of registration.
    pub(super) fn headers(&self) -> impl Iterator<Item = &Header> {
        let rest = self.rest.as_deref();
        let mut held = rest.into_iter().flat_map(|rest| &rest.held).peekable();
        let slots = rest.into_iter().flat_map(|rest| &rest.slots);
        let mut ready = self
            .first
            .iter()
            .chain(slots)
            .filter_map(|slot| Some((slot.id, slot.entry.as_ref()?)))
            .peekable();
        std::iter::from_fn(move || {
            let is_held_next = match (held.peek(), ready.peek()) {
                (Some((held, _)), Some((ready, _))) => **held < *ready,
                (held, _) => held.is_some(),
            };
            if is_held_next {
                held.next().map(|(_, entry)| &entry.header)
            } else {
                ready.next().map(|(_, entry)| &entry.header)
            }
        })
    }

    fn slot_mut(&mut self, id: u64) -> Option<&mut Slot> {
        if self.first.as_ref().is_some_and(|first| first.id == id) {
            return self.first.as_mut();
        }
        let slots = &mut self.rest.as_mut()?.slots;
        // A handle is nearly always used right after the registration.
        let index = match slots.back() {
            Some(last) if last.id == id => slots.len() - 1,
            _ => slots.binary_search_by_key(&id, |slot| slot.id).ok()?,
        };
        slots.get_mut(index)
    }

    #[inline]
    fn removed(&mut self, entry: &BoxEntry) {
        self.len -= 1;
        if let Some(name) = &entry.header.name {
            self.names.remove(name);
        }
    }

    /// Bounds the number of empty slots. A stream may register the same name for hours.
    fn compact(&mut self) {
        let Some(rest) = &mut self.rest else { return };
        if rest.slots.len() > 2 * self.len + COMPACT_ABOVE {
            rest.slots.retain(|slot| slot.entry.is_some());
        }
    }

    #[inline]
    fn rest_mut(&mut self) -> &mut Rest {
        self.rest.get_or_insert_default()
    }
}

#[cfg(test)]
#[path = "queue_tests.rs"]
mod tests;

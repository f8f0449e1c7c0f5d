//! Finds a request's place by its number.

use std::collections::HashMap;

/// So many numbers in a row have a place each.
const NEAR: usize = 1024;

/// Numbers count up, so those of the last requests are mostly found by their lowest bits. One whose
/// bits a later one has taken is looked up in a map.
pub(super) struct Index {
    near: Box<[Entry; NEAR]>,
    far: HashMap<u64, u32>,
}

/// No request has the number 0.
#[derive(Clone, Copy, Default)]
struct Entry {
    number: u64,
    place: u32,
}

impl Index {
    pub(super) fn new() -> Self {
        Self {
            near: Box::new([Entry::default(); NEAR]),
            far: HashMap::default(),
        }
    }

    #[inline]
    pub(super) fn get(&self, number: u64) -> Option<u32> {
        let near = self.near[number as usize % NEAR];
        if near.number == number {
            return Some(near.place);
        }
        if self.far.is_empty() {
            return None;
        }
        self.far.get(&number).copied()
    }

    /// A number that is not in it.
    #[inline]
    pub(super) fn insert(&mut self, number: u64, place: u32) {
        let near = &mut self.near[number as usize % NEAR];
        let before = std::mem::replace(near, Entry { number, place });
        if before.number != 0 {
            self.far.insert(before.number, before.place);
        }
    }

    #[inline]
    pub(super) fn remove(&mut self, number: u64) {
        let near = &mut self.near[number as usize % NEAR];
        if near.number == number {
            near.number = 0;
        } else {
            self.far.remove(&number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_found_also_when_a_later_one_has_its_bits() {
        let mut index = Index::new();
        let numbers = [5, 5 + NEAR as u64, 5 + 2 * NEAR as u64, 6];
        for (number, place) in numbers.into_iter().zip(0..) {
            assert_eq!(index.get(number), None);
            index.insert(number, place);
        }
        for (number, place) in numbers.into_iter().zip(0..) {
            assert_eq!(index.get(number), Some(place));
        }
        for number in numbers {
            index.remove(number);
            assert_eq!(index.get(number), None);
        }
        assert!(index.far.is_empty());
    }
}

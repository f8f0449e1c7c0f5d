//! The choices that a generated case makes.

use std::collections::VecDeque;

/// The choices that a generated case makes, one after the other.
pub(super) struct Choices(pub(super) VecDeque<u8>);

impl Choices {
    /// Keeps some back for the end.
    pub(super) fn split(mut choices: Vec<u8>) -> (Self, Self, usize) {
        let steps = choices.len() * 4 / 5;
        let endgame = choices.split_off(steps);
        (Self(choices.into()), Self(endgame.into()), steps)
    }

    pub(super) fn below(&mut self, limit: usize) -> usize {
        usize::from(self.0.pop_front().unwrap_or(0)) % limit
    }

    pub(super) fn one_in(&mut self, chances: usize) -> bool {
        self.below(chances) == chances - 1
    }
}

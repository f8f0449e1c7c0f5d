//! The source of every decision of a run: SplitMix64, which is the same on every machine.

use std::time::Duration;

#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Independent dice for one part of the run, so that a change in one part does not shift the
    /// decisions of the others.
    pub fn of(seed: u64, part: u64) -> Self {
        let mut dice = Self(seed ^ part.wrapping_mul(0xd134_2543_de82_ef95));
        Self(dice.roll())
    }

    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn fork(&mut self) -> Self {
        Self(self.roll())
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.roll() % bound
    }

    pub fn one_in(&mut self, bound: u64) -> bool {
        self.below(bound) == 0
    }

    pub fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }

    /// A pause that is below every timeout of the server.
    pub fn short_pause(&mut self) -> Duration {
        let limit = self.pick(&[1, 10, 1_000, 10_000, 1_000_000, 10_000_000]);
        Duration::from_micros(self.below(limit))
    }

    /// A pause that may be longer than some timeouts of the server.
    pub fn pause(&mut self) -> Duration {
        if self.one_in(8) {
            Duration::from_secs(self.pick(&[20, 29, 31, 70, 700]))
        } else {
            self.short_pause()
        }
    }
}

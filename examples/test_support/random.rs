//! Random numbers from a seed: SplitMix64.

use std::{env, hash::BuildHasher, ops::Range};

pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Uses the seed in `KILL_SEED`, or a random one. Prints the seed.
    pub fn from_environment() -> Self {
        let seed = match env::var("KILL_SEED") {
            Ok(seed) => seed.parse().expect("KILL_SEED is a number"),
            Err(_) => std::hash::RandomState::new().hash_one("seed"),
        };
        println!("KILL_SEED={seed}");
        Self::new(seed)
    }

    pub fn seed(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub fn within(&mut self, range: Range<u64>) -> u64 {
        range.start + self.seed() % (range.end - range.start)
    }
}

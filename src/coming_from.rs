#![doc = include_str!("../docs/coming-from.md")]

/// The code in the README compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}

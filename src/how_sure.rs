#![doc = include_str!("../docs/how-sure.md")]

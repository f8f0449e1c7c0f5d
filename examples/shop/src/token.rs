//! Unpredictable random numbers.

use std::fmt::Write;

use argon2::password_hash::rand_core::{OsRng, RngCore};

/// Returns 256 bits from the operating system, in hexadecimal.
pub fn random() -> String {
    let mut bytes = [0; 32];
    OsRng.fill_bytes(&mut bytes);
    hex(&bytes)
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

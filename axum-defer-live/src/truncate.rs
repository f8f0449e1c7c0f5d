//! Truncates text from outside to a byte limit.

use std::fmt::{self, Display, Write};

/// Returns the longest prefix of `text` that fits into `max_bytes`.
pub(crate) fn truncate(text: &str, max_bytes: usize) -> &str {
    if text.len() <= max_bytes {
        return text;
    }
    let mut end = max_bytes;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// Formats `value` and stops it after `max_bytes`, so that endless text costs no more than that.
pub(crate) fn format_truncated(value: &dyn Display, max_bytes: usize) -> String {
    let mut bounded = Bounded {
        text: String::new(),
        remaining: max_bytes,
    };
    if write!(bounded, "{value}").is_err() {
        bounded.text.push('…');
    }
    bounded.text
}

struct Bounded {
    text: String,
    remaining: usize,
}

impl Write for Bounded {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let prefix = truncate(text, self.remaining);
        self.text.push_str(prefix);
        self.remaining -= prefix.len();
        if prefix.len() < text.len() {
            self.remaining = 0;
            return Err(fmt::Error);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn truncate_never_splits_a_character() {
        assert_eq!(truncate("grün", 3), "gr");
        assert_eq!(truncate("grün", 4), "grü");
        assert_eq!(truncate("grün", 99), "grün");
    }

    #[test]
    fn format_truncated_stops_endless_text() {
        struct Endless;
        impl Display for Endless {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                loop {
                    formatter.write_str("ha")?;
                }
            }
        }
        assert_eq!(format_truncated(&Endless, 5), "hahah…");
        assert_eq!(format_truncated(&"short", 5), "short");
    }
}

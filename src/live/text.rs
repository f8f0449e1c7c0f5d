//! Texts that come from outside, cut to a length.

use std::fmt::{self, Display, Write};

/// As much of the text as fits into so many bytes.
#[inline]
pub(super) fn cut(text: &str, bytes: usize) -> &str {
    if text.len() <= bytes {
        return text;
    }
    let mut end = bytes;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// What the value says of itself, up to so many bytes; it is asked for no more than that.
pub(super) fn say(value: &dyn Display, bytes: usize) -> String {
    let mut bounded = Bounded {
        text: String::new(),
        room: bytes,
    };
    if write!(bounded, "{value}").is_err() {
        bounded.text.push('…');
    }
    bounded.text
}

struct Bounded {
    text: String,
    room: usize,
}

impl Write for Bounded {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let fits = cut(text, self.room);
        self.text.push_str(fits);
        self.room -= fits.len();
        if fits.len() < text.len() {
            self.room = 0;
            return Err(fmt::Error);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_never_splits_a_character() {
        assert_eq!(cut("grün", 3), "gr");
        assert_eq!(cut("grün", 4), "grü");
        assert_eq!(cut("grün", 99), "grün");
    }

    #[test]
    fn a_text_without_end_is_asked_for_no_more_than_fits() {
        struct Endless;
        impl Display for Endless {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                loop {
                    formatter.write_str("ha")?;
                }
            }
        }
        assert_eq!(say(&Endless, 5), "hahah…");
        assert_eq!(say(&"short", 5), "short");
    }
}

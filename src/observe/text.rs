//! Texts of peers and errors in messages: on one line, and bounded.

use std::{
    error::Error,
    fmt::{self, Write},
};

/// The longest text of an error in a message, in bytes.
const MAX_TEXT: usize = 4096;

/// A text, displayed on one line. Control characters and line separators are escaped, because an error
/// or a path must not add lines to a log.
pub(crate) struct OneLine<T>(pub(crate) T);

impl<T: fmt::Display> fmt::Display for OneLine<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut escaped = Escaped {
            formatter,
            left: MAX_TEXT,
        };
        write!(escaped, "{}", self.0)
    }
}

/// An error and its sources, displayed on one line.
pub(crate) struct ErrorChain<'a>(pub(crate) &'a (dyn Error + 'static));

impl fmt::Display for ErrorChain<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut escaped = Escaped {
            formatter,
            left: MAX_TEXT,
        };
        write!(escaped, "{}", self.0)?;
        // An error may be its own source.
        let sources = std::iter::successors(self.0.source(), |&error| error.source());
        for source in sources.take(32) {
            write!(escaped, ": {source}")?;
        }
        Ok(())
    }
}

/// A writer that escapes text, up to a number of bytes.
struct Escaped<'a, 'b> {
    formatter: &'a mut fmt::Formatter<'b>,
    left: usize,
}

impl Write for Escaped<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars() {
            if self.left == 0 {
                return Ok(());
            }
            if self.left < character.len_utf8() {
                self.left = 0;
                return self.formatter.write_char('…');
            }
            self.left -= character.len_utf8();
            match character {
                // Line and paragraph separator end lines in some viewers.
                '\u{2028}' | '\u{2029}' => write!(self.formatter, "{}", character.escape_unicode()),
                _ if character.is_control() => {
                    write!(self.formatter, "{}", character.escape_default())
                }
                _ => self.formatter.write_char(character),
            }?;
        }
        Ok(())
    }
}

/// Returns the longest prefix of at most `max` bytes that ends between characters.
pub(crate) fn truncate(text: &str, max: usize) -> &str {
    let mut end = text.len().min(max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Outer(std::io::Error);

    impl fmt::Display for Outer {
        fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("outer\nline")
        }
    }

    impl Error for Outer {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(&self.0)
        }
    }

    #[test]
    fn error_chain_with_line_breaks_is_one_line() {
        let error = Outer(std::io::Error::other("inner\r\n\u{1b}[31m\u{2028}"));
        let text = ErrorChain(&error).to_string();
        assert_eq!(text, r"outer\nline: inner\r\n\u{1b}[31m\u{2028}");
    }

    #[test]
    fn text_beyond_limit_is_truncated() {
        let text = OneLine("é".repeat(MAX_TEXT)).to_string();
        assert_eq!(text.chars().count(), MAX_TEXT / 2);
        let text = OneLine(format!("a{}", "é".repeat(MAX_TEXT))).to_string();
        assert!(text.ends_with('…') && text.len() <= MAX_TEXT + '…'.len_utf8());
        assert_eq!(truncate("aé", 2), "a");
    }
}

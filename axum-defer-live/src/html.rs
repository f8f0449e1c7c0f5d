//! Values as HTML, and the template of the page.

use std::{
    fmt::{self, Display, Write},
    time::{Duration, SystemTime},
};

/// Text, escaped for elements and attributes. Invisible characters are replaced.
pub(crate) struct Text<T>(pub(crate) T);

impl<T: Display> Display for Text<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(Escape(formatter), "{}", self.0)
    }
}

struct Escape<'a, 'b>(&'a mut fmt::Formatter<'b>);

impl Write for Escape<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars() {
            match character {
                '&' => self.0.write_str("&amp;")?,
                '<' => self.0.write_str("&lt;")?,
                '>' => self.0.write_str("&gt;")?,
                '"' => self.0.write_str("&quot;")?,
                '\'' => self.0.write_str("&#39;")?,
                '\n' | '\t' => self.0.write_char(character)?,
                _ if is_misleading(character) => self.0.write_char('\u{fffd}')?,
                _ => self.0.write_char(character)?,
            }
        }
        Ok(())
    }
}

/// Returns `true` for characters that are invisible or change the direction of text. U+200C and
/// U+200D are not among them, because some scripts and emoji need them.
fn is_misleading(character: char) -> bool {
    matches!(
        character,
        '\u{0}'..='\u{1f}'
            | '\u{7f}'..='\u{9f}'
            | '\u{ad}'
            | '\u{61c}'
            | '\u{180e}'
            | '\u{200b}'
            | '\u{200e}'
            | '\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}'
    )
}

/// A duration, as HTML, with two or three significant digits: `850 µs`, `12 ms`, `3.4 s`, `2 min 5 s`.
pub(crate) struct Span(pub(crate) Duration);

impl Display for Span {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(duration) = self;
        let seconds = duration.as_secs();
        match duration.as_micros() {
            0 => formatter.write_str("&lt;1 µs"),
            micros @ 1..1_000 => write!(formatter, "{micros} µs"),
            micros @ 1_000..10_000 => {
                write!(formatter, "{}.{} ms", micros / 1_000, micros / 100 % 10)
            }
            micros @ 10_000..1_000_000 => write!(formatter, "{} ms", micros / 1_000),
            micros @ 1_000_000..60_000_000 => {
                write!(formatter, "{}.{} s", seconds, micros / 100_000 % 10)
            }
            _ if seconds < 3600 => write!(formatter, "{} min {} s", seconds / 60, seconds % 60),
            _ => write!(formatter, "{} h {} min", seconds / 3600, seconds / 60 % 60),
        }
    }
}

/// A time of day in UTC, as HTML. The page's script converts it to local time.
pub(crate) struct Time(pub(crate) SystemTime);

impl Display for Time {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let since = self.0.duration_since(SystemTime::UNIX_EPOCH);
        let unix = since.unwrap_or_default().as_secs();
        let (hour, minute, second) = (unix / 3600 % 24, unix / 60 % 60, unix % 60);
        let time = format!("{hour:02}:{minute:02}:{second:02}");
        write!(
            formatter,
            "<time datetime=\"{time}\" data-unix=\"{unix}\">{time} UTC</time>"
        )
    }
}

/// Replaces each `{{name}}` of the template once. Inserted text is not searched again.
pub(crate) fn fill(template: &str, values: &[(&str, String)]) -> String {
    let mut filled = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        filled.push_str(before);
        let (name, after) = after.split_once("}}").unwrap_or((after, ""));
        let value = values.iter().find(|(key, _)| *key == name);
        filled.push_str(value.map_or("", |(_, value)| value));
        rest = after;
    }
    filled.push_str(rest);
    filled
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_escapes_markup() {
        let hostile = "<b onclick='x'>&\"\u{202e}\u{0}";
        let escaped = "&lt;b onclick=&#39;x&#39;&gt;&amp;&quot;\u{fffd}\u{fffd}";
        assert_eq!(Text(hostile).to_string(), escaped);
    }

    #[test]
    fn text_replaces_invisible_characters() {
        let invisible = "\u{200b}\u{feff}\u{61c}\u{ad}\u{2060}\u{2066}\u{202e}\u{e0041}";
        assert_eq!(Text(invisible).to_string(), "\u{fffd}".repeat(8));
        // Emoji and Persian need joiners.
        for text in ["👩\u{200d}💻", "می\u{200c}خواهم"] {
            assert_eq!(Text(text).to_string(), text);
        }
    }

    #[test]
    fn span_is_short() {
        for (micros, text) in [
            (0, "&lt;1 µs"),
            (850, "850 µs"),
            (1_250, "1.2 ms"),
            (12_345, "12 ms"),
            (3_450_000, "3.4 s"),
            (125_000_000, "2 min 5 s"),
            (7_380_000_000, "2 h 3 min"),
        ] {
            assert_eq!(Span(Duration::from_micros(micros)).to_string(), text);
        }
    }

    #[test]
    fn time_is_in_utc() {
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(20_454 * 86_400 + 3_723);
        let html = "<time datetime=\"01:02:03\" data-unix=\"1767229323\">01:02:03 UTC</time>";
        assert_eq!(Time(time).to_string(), html);
    }

    #[test]
    fn fill_does_not_search_inserted_text() {
        let values = [("a", "{{b}}".to_owned()), ("b", "B".to_owned())];
        assert_eq!(fill("<{{a}}-{{b}}>", &values), "<{{b}}-B>");
    }
}

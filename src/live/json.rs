//! The little that it takes to write JSON.

use std::{
    fmt::{Display, Write},
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

use super::snapshot::Clock;

/// Writes one value; what is written into it is always whole.
#[derive(Default)]
pub(super) struct Json(String);

impl Json {
    pub(super) fn into_text(self) -> String {
        self.0
    }

    fn comma(&mut self) {
        if !matches!(self.0.as_bytes().last(), None | Some(b'{' | b'[' | b':')) {
            self.0.push(',');
        }
    }

    pub(super) fn object(&mut self, members: impl FnOnce(&mut Self)) {
        self.comma();
        self.0.push('{');
        members(self);
        self.0.push('}');
    }

    pub(super) fn array<T>(
        &mut self,
        items: impl IntoIterator<Item = T>,
        mut item: impl FnMut(&mut Self, T),
    ) {
        self.comma();
        self.0.push('[');
        for each in items {
            item(self, each);
        }
        self.0.push(']');
    }

    pub(super) fn key(&mut self, key: &str) -> &mut Self {
        self.text(key);
        self.0.push(':');
        self
    }

    pub(super) fn number(&mut self, number: impl Into<u128>) {
        self.comma();
        let _ = write!(self.0, "{}", number.into());
    }

    pub(super) fn boolean(&mut self, value: bool) {
        self.comma();
        self.0.push_str(if value { "true" } else { "false" });
    }

    fn null(&mut self) {
        self.comma();
        self.0.push_str("null");
    }

    /// [RFC 8259, section 7](https://www.rfc-editor.org/rfc/rfc8259#section-7); `<` too, in case
    /// somebody puts it into a page.
    pub(super) fn text(&mut self, text: &str) {
        self.comma();
        self.0.push('"');
        for character in text.chars() {
            match character {
                '"' => self.0.push_str("\\\""),
                '\\' => self.0.push_str("\\\\"),
                '\u{0}'..='\u{1f}' | '\u{7f}' | '<' | '\u{2028}' | '\u{2029}' => {
                    let _ = write!(self.0, "\\u{:04x}", u32::from(character));
                }
                _ => self.0.push(character),
            }
        }
        self.0.push('"');
    }

    pub(super) fn say(&mut self, value: impl Display) {
        self.text(&value.to_string());
    }

    pub(super) fn optional<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T)) {
        match value {
            Some(value) => write(self, value),
            None => self.null(),
        }
    }

    /// In microseconds.
    pub(super) fn duration(&mut self, duration: Duration) {
        self.number(duration.as_micros());
    }

    /// In microseconds since 1970.
    pub(super) fn time(&mut self, clock: &Clock, at: Instant) {
        let since = clock.time_of(at).duration_since(SystemTime::UNIX_EPOCH);
        self.duration(since.unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_in_a_text_stays_in_it() {
        let mut json = Json::default();
        json.object(|json| {
            json.key("a\"").text("\"\\\n\u{0}</script>\u{2028}ü");
            json.key("b").array([1_u8, 2], Json::number);
            json.key("c").array([""; 0], Json::text);
            json.key("d").optional(None, Json::text);
        });
        assert_eq!(
            json.into_text(),
            "{\"a\\\"\":\"\\\"\\\\\\u000a\\u0000\\u003c/script>\\u2028ü\",\"b\":[1,2],\"c\":[],\"d\":null}"
        );
    }

    #[test]
    fn a_text_that_ends_like_the_beginning_of_an_array_is_followed_by_a_comma() {
        let mut json = Json::default();
        json.array(["[", "{", ":"], Json::text);
        assert_eq!(json.into_text(), r#"["[","{",":"]"#);
    }
}

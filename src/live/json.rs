//! The record as JSON, and the little that it takes to write it.

use std::{
    fmt::{Display, Write},
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

use super::{
    record::Failure,
    request::{Callback, Request},
    snapshot::{Clock, Name, Snapshot, Unfinished},
};

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

    fn say(&mut self, value: impl Display) {
        self.text(&value.to_string());
    }

    fn optional<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T)) {
        match value {
            Some(value) => write(self, value),
            None => self.null(),
        }
    }

    /// In microseconds.
    fn duration(&mut self, duration: Duration) {
        self.number(duration.as_micros());
    }

    /// In microseconds since 1970.
    fn time(&mut self, clock: &Clock, at: Instant) {
        let since = clock.time_of(at).duration_since(SystemTime::UNIX_EPOCH);
        self.duration(since.unwrap_or_default());
    }
}

/// All durations in microseconds, all times in microseconds since 1970.
pub(super) fn snapshot(snapshot: &Snapshot) -> String {
    let clock = &snapshot.clock;
    let counts = &snapshot.counts;
    let mut json = Json::default();
    json.object(|json| {
        json.key("now").time(clock, clock.now);
        json.key("counts").object(|json| {
            for (key, count) in [
                ("registered", counts.registered),
                ("pending", counts.pending()),
                ("running", counts.running()),
                ("ok", counts.ok),
                ("failed", counts.failed),
                ("lost", counts.lost),
                ("did_not_run", counts.did_not_run),
                ("requests_fallen_out", snapshot.requests_fallen_out),
                ("failures_fallen_out", counts.failures_fallen_out),
                ("callbacks_not_recorded", counts.unrecorded),
                ("events_dropped", snapshot.dropped),
            ] {
                json.key(key).number(count);
            }
        });
        json.key("unfinished")
            .array(&snapshot.unfinished, |json, item| {
                unfinished(json, clock, item);
            });
        json.key("requests")
            .array(&snapshot.requests, |json, item| request(json, clock, item));
        json.key("failures")
            .array(&snapshot.failures, |json, item| failure(json, clock, item));
        json.key("names").array(&snapshot.names, name);
    });
    json.into_text()
}

fn unfinished(json: &mut Json, clock: &Clock, callback: &Unfinished) {
    json.object(|json| {
        json.key("id").number(callback.id);
        json.key("name")
            .optional(callback.name.as_deref(), Json::text);
        json.key("place").say(callback.place);
        json.key("phase").text(callback.phase);
        json.key("request").number(callback.request);
        json.key("registered").time(clock, callback.registered);
        json.key("started")
            .optional(callback.started, |json, at| json.time(clock, at));
    });
}

fn request(json: &mut Json, clock: &Clock, request: &Request) {
    json.object(|json| {
        json.key("number").number(request.number);
        json.key("method").text(request.method());
        json.key("path").text(request.path());
        json.key("route").text(request.route());
        json.key("id").text(request.id());
        json.key("arrived").time(clock, request.arrived);
        json.key("answered")
            .optional(request.answered, Json::duration);
        json.key("end").optional(request.completion, |json, end| {
            json.object(|json| {
                json.key("after").duration(end.elapsed());
                let status = end.status().map(|status| status.as_u16());
                json.key("status").optional(status, Json::number);
                json.key("success").boolean(end.is_success());
                json.key("delivery")
                    .say(format_args!("{:?}", end.delivery()));
                json.key("bytes").number(end.bytes_sent());
            });
        });
        json.key("callbacks_not_recorded")
            .number(request.more_callbacks);
        json.key("callbacks")
            .array(&request.callbacks, |json, item| callback(json, clock, item));
    });
}

fn callback(json: &mut Json, clock: &Clock, callback: &Callback) {
    json.object(|json| {
        json.key("id").number(callback.id);
        json.key("name")
            .optional(callback.name.as_deref(), Json::text);
        json.key("place").say(callback.place);
        json.key("phase").say(callback.phase);
        json.key("registered").time(clock, callback.registered);
        json.key("started")
            .optional(callback.started, |json, at| json.time(clock, at));
        json.key("ended")
            .optional(callback.ended, |json, (at, _)| json.time(clock, at));
        json.key("outcome")
            .optional(callback.ended, |json, (_, end)| json.text(end.label()));
    });
}

fn failure(json: &mut Json, clock: &Clock, failure: &Failure) {
    json.object(|json| {
        json.key("at").time(clock, failure.at);
        json.key("name")
            .optional(failure.name.as_deref(), Json::text);
        json.key("place").say(failure.place);
        json.key("phase").say(failure.phase);
        json.key("outcome").text(failure.end.label());
        json.key("text").text(&failure.text);
        json.key("request").number(failure.request);
    });
}

fn name(json: &mut Json, name: &Name) {
    json.object(|json| {
        let named = name.is_named.then_some(&*name.label);
        json.key("name").optional(named, Json::text);
        json.key("place")
            .optional(name.place, |json, place| json.say(place));
        json.key("ran").number(name.ran);
        json.key("failed").number(name.failed);
        json.key("did_not_run").number(name.did_not_run);
        for (key, times) in [("waited", name.waited), ("took", name.took)] {
            json.key(key).object(|json| {
                for (key, time) in ["p50", "p95", "p99"].into_iter().zip(times) {
                    json.key(key).duration(time);
                }
            });
        }
    });
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

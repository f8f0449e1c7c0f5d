//! The record as JSON, for scripts.

use super::{
    json::Json,
    record::Failure,
    request::{Callback, Request},
    snapshot::{Clock, Name, Snapshot, Unfinished},
};

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
                json.key("bytes").number(end.body_bytes());
            });
        });
        json.key("callbacks_not_recorded")
            .number(request.more_callbacks);
        json.key("callbacks")
            .array(request.callbacks(), |json, item| {
                callback(json, clock, item)
            });
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

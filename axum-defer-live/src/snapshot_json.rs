//! `snapshot.json`: the whole record, for scripts.

use std::time::{Duration, SystemTime};

use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    histogram::Histogram,
    names::NameStats,
    record::Failure,
    request::{CallbackRecord, RequestRecord},
    snapshot::{Clock, Snapshot, Unfinished},
    views::delivery_label,
};

/// Returns the record as JSON. Durations are in microseconds, times in microseconds since 1970.
pub(crate) fn snapshot_json(snapshot: &Snapshot) -> String {
    to_string(snapshot)
}

/// Escapes `<`, so that the text is safe even inside an HTML page.
pub(crate) fn to_string(value: &impl Serialize) -> String {
    let json = serde_json::to_string(value).unwrap_or_default();
    json.replace('<', "\\u003c")
}

impl Serialize for Snapshot {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let clock = &self.clock;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("now", &time(clock, clock.now))?;
        map.serialize_entry("counts", &counts(self))?;
        map.serialize_entry("unfinished", &Items(clock, &self.unfinished, unfinished))?;
        map.serialize_entry("requests", &Items(clock, &self.requests, request))?;
        map.serialize_entry("failures", &Items(clock, &self.failures, failure))?;
        map.serialize_entry("names", &Items(clock, &self.names, name))?;
        map.end()
    }
}

/// A list that serializes one item after the other, so that the whole record is never in memory as
/// [`Value`]s.
struct Items<'a, T>(&'a Clock, &'a [T], fn(&Clock, &T) -> Value);

impl<T> Serialize for Items<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(clock, items, to_value) = self;
        serializer.collect_seq(items.iter().map(|item| to_value(clock, item)))
    }
}

fn counts(snapshot: &Snapshot) -> Value {
    let counts = &snapshot.counts;
    json!({
        "registered": counts.registered,
        "pending": counts.pending(),
        "running": counts.running(),
        "ok": counts.ok,
        "failed": counts.failed,
        "lost": counts.lost,
        "did_not_run": counts.did_not_run,
        "requests_evicted": snapshot.requests_evicted,
        "failures_evicted": counts.failures_evicted,
        "callbacks_not_recorded": counts.callbacks_not_recorded,
        "events_dropped": counts.events_dropped,
    })
}

fn unfinished(clock: &Clock, unfinished: &Unfinished) -> Value {
    let mut json = callback(clock, &unfinished.callback);
    json["scope"] = unfinished.scope.into();
    json
}

fn request(clock: &Clock, request: &RequestRecord) -> Value {
    let completion = request.completion.as_ref().map(|completion| {
        json!({
            "elapsed": micros(completion.elapsed()),
            "status": completion.status().map(|status| status.as_u16()),
            "success": completion.is_success(),
            "delivery": delivery_label(completion.delivery()),
            "body_bytes": completion.body_bytes(),
        })
    });
    let callbacks = request.callbacks.iter();
    json!({
        "scope": request.scope,
        "method": request.text.method,
        "path": request.text.path,
        "route": request.text.route,
        "request_id": request.text.id,
        "started_at": time(clock, request.started_at),
        "time_to_head": request.time_to_head.map(micros),
        "completion": completion,
        "callbacks": callbacks.map(|item| callback(clock, item)).collect::<Vec<_>>(),
        "callbacks_not_recorded": request.callbacks_not_recorded,
    })
}

fn callback(clock: &Clock, callback: &CallbackRecord) -> Value {
    json!({
        "id": callback.id,
        "name": callback.name.as_deref(),
        "location": callback.location.to_string(),
        "phase": callback.phase.to_string(),
        "registered_at": time(clock, callback.registered_at),
        "started_at": callback.started_at.map(|at| time(clock, at)),
        "ended_at": callback.ended_at().map(|at| time(clock, at)),
        "outcome": callback.ended.map(|(_, outcome)| outcome.label()),
    })
}

fn failure(clock: &Clock, failure: &Failure) -> Value {
    let mut json = callback(clock, &failure.callback);
    json["scope"] = failure.scope.into();
    json["text"] = (*failure.text).into();
    json
}

fn name(_: &Clock, (_, name): &(usize, NameStats)) -> Value {
    let percentiles = |histogram: &Histogram| {
        let [p50, p95, p99] = histogram.percentiles().map(micros);
        json!({ "p50": p50, "p95": p95, "p99": p99 })
    };
    json!({
        "name": name.is_named.then_some(&*name.label),
        "location": name.location.map(ToString::to_string),
        "ran": name.ran,
        "failed": name.failed,
        "did_not_run": name.did_not_run,
        "queued": percentiles(&name.queued),
        "duration": percentiles(&name.duration),
    })
}

fn micros(duration: Duration) -> u64 {
    duration.as_micros() as u64
}

fn time(clock: &Clock, at: Instant) -> u64 {
    let since = clock.time_of(at).duration_since(SystemTime::UNIX_EPOCH);
    micros(since.unwrap_or_default())
}

//! The event stream: changes of the record, as server-sent events.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::response::{
    IntoResponse, Response,
    sse::{Event, KeepAlive, Sse},
};
use futures_util::stream::{self, BoxStream, StreamExt};
use http::{HeaderValue, StatusCode, header, request::Parts};
use serde_json::json;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::sleep,
};

use crate::{
    recorder::Recorder,
    snapshot::{Filter, Snapshot, instance},
    snapshot_json::to_string,
    views,
};

/// Changes are collected for this long.
const INTERVAL: Duration = Duration::from_millis(250);
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// The number of requests in one event, newest first.
const MAX_REQUESTS: usize = 100;
const MAX_VIEWERS: usize = 16;

#[derive(Clone)]
pub(crate) struct Viewers(Arc<Semaphore>);

impl Default for Viewers {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MAX_VIEWERS)))
    }
}

/// Returns the ID of an event: the record, and its version.
pub(crate) fn event_id(snapshot: &Snapshot) -> String {
    format!("{}-{}", snapshot.instance, snapshot.version)
}

pub(crate) fn respond(recorder: &Arc<Recorder>, viewers: &Viewers, request: &Parts) -> Response {
    let Ok(permit) = viewers.0.clone().try_acquire_owned() else {
        let retry = [(header::RETRY_AFTER, "5")];
        let text = "Too many viewers. Try again later.\n";
        return (StatusCode::SERVICE_UNAVAILABLE, retry, text).into_response();
    };
    let (instance, version) = last_event(request).unwrap_or_default();
    let viewer = Viewer {
        recorder: recorder.clone(),
        instance,
        version,
        has_unfinished: true,
        is_first: true,
        _permit: permit,
    };
    let events = stream::unfold(viewer, async |mut viewer| {
        let event = viewer.next().await;
        Some((Ok(event), viewer))
    });
    let events = until_shutdown(events.boxed(), request);
    let keep_alive = KeepAlive::new().interval(KEEP_ALIVE);
    let mut response = Sse::new(events).keep_alive(keep_alive).into_response();
    // Without it, nginx buffers events.
    let headers = response.headers_mut();
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

type Events = BoxStream<'static, Result<Event, Infallible>>;

#[cfg(feature = "serve")]
fn until_shutdown(events: Events, request: &Parts) -> Events {
    match axum_defer::Shutdown::of(&request.extensions) {
        Some(shutdown) => events.take_until(shutdown).boxed(),
        None => events,
    }
}

#[cfg(not(feature = "serve"))]
fn until_shutdown(events: Events, _: &Parts) -> Events {
    events
}

/// Returns the last event that the browser received, from the header of a reconnect or from the
/// page's query.
fn last_event(request: &Parts) -> Option<(u64, u64)> {
    let header = request.headers.get("last-event-id");
    let header = header.and_then(|id| id.to_str().ok());
    let query = request.uri.query().unwrap_or("").split('&');
    let mut since = query.filter_map(|pair| pair.strip_prefix("since="));
    let (instance, version) = header.or_else(|| since.next())?.split_once('-')?;
    Some((instance.parse().ok()?, version.parse().ok()?))
}

struct Viewer {
    recorder: Arc<Recorder>,
    instance: u64,
    version: u64,
    /// Something was pending or running, so its age changes.
    has_unfinished: bool,
    is_first: bool,
    _permit: OwnedSemaphorePermit,
}

impl Viewer {
    async fn next(&mut self) -> Event {
        loop {
            // The first event is sent at once. Some proxies forward headers only with a body.
            if !std::mem::take(&mut self.is_first) {
                sleep(INTERVAL).await;
            }
            let snapshot = self.recorder.with_record(|record| {
                let reset = instance(record) != self.instance || record.version < self.version;
                let has_changed = reset || record.version != self.version || self.has_unfinished;
                let filter = Filter {
                    since: if reset { 0 } else { self.version },
                    max_requests: MAX_REQUESTS,
                };
                has_changed.then(|| (Snapshot::new(record, filter), reset))
            });
            if let Some((snapshot, reset)) = snapshot {
                self.has_unfinished = !snapshot.unfinished.is_empty();
                self.instance = snapshot.instance;
                self.version = snapshot.version;
                let event = Event::default().id(event_id(&snapshot));
                return event.data(changes(&snapshot, reset));
            }
        }
    }
}

fn changes(snapshot: &Snapshot, reset: bool) -> String {
    to_string(&json!({
        "reset": reset,
        "totals": views::totals(snapshot),
        "limits": views::limits(snapshot),
        "now": views::now(snapshot),
        "requests": views::requests(snapshot),
        "failures": views::failures(snapshot),
        "names": views::names(snapshot),
    }))
}

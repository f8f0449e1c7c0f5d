//! What has changed, told to the page as server-sent events.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::response::{
    IntoResponse, Response,
    sse::{Event, KeepAlive, Sse},
};
use futures_util::stream::{self, StreamExt};
use http::{StatusCode, header, request::Parts};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::sleep,
};

use super::{
    inbox::Inbox,
    json::Json,
    parts::{element::Part, failures, names, now, requests, summary},
    snapshot::{Snapshot, Wanted, instance},
};

/// So long a change waits for others.
const PAUSE: Duration = Duration::from_millis(250);
/// Of all that changes meanwhile, so many requests are told: the newest.
const REQUESTS: usize = 100;
/// Each browser has one.
const VIEWERS: usize = 16;

#[derive(Clone)]
pub(super) struct Viewers(Arc<Semaphore>);

impl Default for Viewers {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(VIEWERS)))
    }
}

/// What the browser has seen: which record, and its version.
pub(super) fn id(snapshot: &Snapshot) -> String {
    format!("{}-{}", snapshot.instance, snapshot.version)
}

struct Position {
    inbox: Arc<Inbox>,
    instance: u128,
    version: u64,
    /// Something is pending or running, and grows older.
    is_busy: bool,
    is_first: bool,
    _viewer: OwnedSemaphorePermit,
}

pub(super) fn respond(inbox: &Arc<Inbox>, viewers: &Viewers, request: &Parts) -> Response {
    let Ok(viewer) = viewers.0.clone().try_acquire_owned() else {
        let retry = [(header::RETRY_AFTER, "5")];
        return (
            StatusCode::SERVICE_UNAVAILABLE,
            retry,
            "Too many look at it.\n",
        )
            .into_response();
    };
    let (instance, version) = seen(request).unwrap_or((0, 0));
    let position = Position {
        inbox: inbox.clone(),
        instance,
        version,
        is_busy: true,
        is_first: true,
        _viewer: viewer,
    };
    let changes = stream::unfold(position, async |mut position| {
        let text = position.next().await;
        Some((Ok::<_, Infallible>(text), position))
    });
    // The first one also has the headers sent through proxies that wait for something to send.
    let changes = until_shutdown(changes.boxed(), request);
    let mut response = Sse::new(changes)
        .keep_alive(KeepAlive::new().interval(Duration::from_secs(10)))
        .into_response();
    let headers = response.headers_mut();
    // nginx would hold events back.
    headers.insert("x-accel-buffering", http::HeaderValue::from_static("no"));
    response
}

type Changes = stream::BoxStream<'static, Result<Event, Infallible>>;

#[cfg(feature = "serve")]
fn until_shutdown(changes: Changes, request: &Parts) -> Changes {
    match crate::serve::shutdown::Shutdown::of(&request.extensions) {
        Some(shutdown) => changes.take_until(shutdown).boxed(),
        None => changes,
    }
}

#[cfg(not(feature = "serve"))]
fn until_shutdown(changes: Changes, _: &Parts) -> Changes {
    changes
}

/// What a browser that comes back has seen, or else what the page had in it.
fn seen(request: &Parts) -> Option<(u128, u64)> {
    let last = request.headers.get("last-event-id");
    let last = last.and_then(|id| id.to_str().ok());
    let query = request.uri.query().unwrap_or("");
    let since = query
        .split('&')
        .find_map(|pair| pair.strip_prefix("since="));
    let (instance, version) = last.or(since)?.split_once('-')?;
    Some((instance.parse().ok()?, version.parse().ok()?))
}

impl Position {
    async fn next(&mut self) -> Event {
        loop {
            if !std::mem::take(&mut self.is_first) {
                sleep(PAUSE).await;
            }
            let (version, instance) = self.inbox.look(|record| (record.version, instance(record)));
            let is_other = instance != self.instance || version < self.version;
            if version == self.version && !is_other && !self.is_busy {
                continue;
            }
            let wanted = Wanted {
                since: if is_other { 0 } else { self.version },
                requests: REQUESTS,
            };
            let snapshot = self.inbox.look(|record| Snapshot::of(record, wanted));
            self.is_busy = !snapshot.unfinished.is_empty();
            self.instance = snapshot.instance;
            self.version = snapshot.version;
            return Event::default()
                .id(id(&snapshot))
                .data(changes(&snapshot, is_other));
        }
    }
}

fn changes(snapshot: &Snapshot, is_other: bool) -> String {
    let mut json = Json::default();
    json.object(|json| {
        json.key("reset").boolean(is_other);
        json.key("totals").text(&summary::totals(snapshot));
        json.key("bounds").text(&summary::bounds(snapshot));
        for (key, parts) in [
            ("now", now::now(snapshot)),
            ("requests", requests::requests(snapshot)),
            ("failures", failures::failures(snapshot)),
            ("names", names::names(snapshot)),
        ] {
            json.key(key).array(&parts, part);
        }
    });
    json.into_text()
}

fn part(json: &mut Json, (key, html): &Part) {
    json.array([key, html], |json, text| json.text(text));
}

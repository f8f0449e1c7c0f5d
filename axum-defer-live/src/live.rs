//! The observer.

use std::{fmt, sync::Arc, time::Duration};

use axum::Router;
use axum_defer::{CallbackInfo, Completion, DeferObserver, Finished, LostReason, ScopeInfo};
use http::request::Parts;
use tokio::time::Instant;

use crate::{
    access::Access,
    error_text::outcome_and_text,
    event::{CallbackData, EndEvent, Event, EventKind, ScopeEnd, Times},
    outcome::Outcome,
    record::{Limits, Record},
    recorder::Recorder,
    router::router,
};

const DEFAULT_LIMITS: Limits = Limits {
    requests: 1_000,
    failures: 200,
    names: 100,
};

/// An observer that keeps a bounded record of deferred callbacks, and a router with a page that
/// shows it. See the [crate docs](crate).
///
/// Clones share the record. One record can observe several layers.
///
/// ```
/// use axum::{Router, routing::get};
/// use axum_defer::DeferLayer;
/// use axum_defer_live::Live;
///
/// let live = Live::new().max_requests(5_000).max_failures(1_000).max_names(50);
/// let app: Router = Router::new()
///     .route("/", get(|| async { "hello" }))
///     .layer(DeferLayer::new().observer(live.clone()))
///     .nest("/admin/deferred", live.loopback_router());
/// # let _ = app;
/// ```
#[derive(Clone)]
pub struct Live {
    recorder: Arc<Recorder>,
}

impl Live {
    /// Creates an empty record with the default limits.
    ///
    /// ```
    /// use axum_defer::DeferLayer;
    /// use axum_defer_live::Live;
    ///
    /// let live = Live::new();
    /// let layer = DeferLayer::new().observer(live.clone());
    /// let admin: axum::Router = live.loopback_router();
    /// # let _ = (layer, admin);
    /// ```
    pub fn new() -> Self {
        Self {
            recorder: Arc::new(Recorder::new(Record::new(DEFAULT_LIMITS))),
        }
    }

    /// Sets how many requests are kept. Default: 1,000.
    ///
    /// A request takes about 700 bytes, and 100 bytes per callback. A record that already has more
    /// requests keeps them.
    #[must_use]
    pub fn max_requests(self, max: usize) -> Self {
        self.recorder
            .with_record(|record| record.requests.limit = max);
        self
    }

    /// Sets how many failures are kept, each with its text of at most 8 KiB. Default: 200.
    #[must_use]
    pub fn max_failures(self, max: usize) -> Self {
        self.recorder
            .with_record(|record| record.max_failures = max);
        self
    }

    /// Sets how many names have statistics of their own. Default: 100. The other names share one
    /// entry.
    ///
    /// A name takes about 3 KiB. Callbacks without a name are counted by their location.
    #[must_use]
    pub fn max_names(self, max: usize) -> Self {
        self.recorder.with_record(|record| record.names.limit = max);
        self
    }

    /// Returns the page for clients on this machine. Other requests get a 403 with the reason.
    ///
    /// The address of the client must be known: serve the app with
    /// `app.into_make_service_with_connect_info::<SocketAddr>()`.
    ///
    /// A request is refused if
    ///
    /// - its peer is not a loopback address,
    /// - its host is not `localhost` or a loopback address,
    /// - it has a header that proxies add: `Forwarded`, `Via`, `X-Forwarded-*`, `X-Real-IP`,
    ///   `X-Client-IP`, `True-Client-IP`, `CF-Connecting-IP`, `Fly-Client-IP`, or
    ///   `X-Envoy-External-Address`,
    /// - or a page of another origin sent it (`Sec-Fetch-Site`, `Origin`). Links to the page work.
    ///
    /// # Proxies on the same machine
    ///
    /// Do not use this router behind a proxy. All clients of a proxy on the same machine have a
    /// loopback address, and a proxy that adds none of these headers opens the page to all of them.
    /// **nginx is such a proxy**: by default, `proxy_pass http://127.0.0.1:3000` adds no header, and
    /// sets `Host` to `127.0.0.1:3000`. Use [`router_if`](Self::router_if) there.
    pub fn loopback_router<S>(&self) -> Router<S>
    where
        S: Clone + Send + Sync + 'static,
    {
        router(self.recorder.clone(), Access::Loopback)
    }

    /// Returns the page for requests that match the predicate. Other requests get a 403.
    ///
    /// The predicate runs for each request, on the task that serves it.
    ///
    /// ```
    /// use axum::{Router, http::request::Parts};
    /// use axum_defer_live::Live;
    ///
    /// /// Inserted into the extensions by an authentication layer.
    /// #[derive(Clone)]
    /// struct Admin;
    ///
    /// let live = Live::new();
    /// let admin: Router = live.router_if(|parts: &Parts| parts.extensions.get::<Admin>().is_some());
    /// # let _ = admin;
    /// ```
    pub fn router_if<S>(
        &self,
        predicate: impl Fn(&Parts) -> bool + Send + Sync + 'static,
    ) -> Router<S>
    where
        S: Clone + Send + Sync + 'static,
    {
        router(self.recorder.clone(), Access::If(Arc::new(predicate)))
    }

    fn record(&self, callback: &CallbackInfo<'_>, kind: EventKind) {
        if let Some(callback) = CallbackData::new(callback) {
            let event = Event::Callback(callback, Instant::now(), kind);
            self.recorder.record(event);
        }
    }

    fn did_not_run(&self, callback: &CallbackInfo<'_>, outcome: Outcome) {
        let end = EndEvent {
            outcome,
            times: None,
            text: String::new(),
        };
        self.record(callback, EventKind::Ended(end));
    }
}

impl DeferObserver for Live {
    fn registered(&self, callback: &CallbackInfo<'_>) {
        self.record(callback, EventKind::Registered);
    }

    fn completed(&self, scope: &ScopeInfo, completion: &Completion) {
        self.recorder.record(Event::Completed(ScopeEnd {
            scope: scope.id(),
            time_to_head: scope.time_to_head(),
            completion: completion.clone(),
        }));
    }

    fn replaced(&self, callback: &CallbackInfo<'_>) {
        self.did_not_run(callback, Outcome::Replaced);
    }

    fn deduplicated(&self, callback: &CallbackInfo<'_>) {
        self.did_not_run(callback, Outcome::Duplicate);
    }

    fn started(&self, callback: &CallbackInfo<'_>, _: Duration) {
        self.record(callback, EventKind::Started);
    }

    fn finished(&self, callback: &CallbackInfo<'_>, finished: &Finished<'_>) {
        let (outcome, text) = outcome_and_text(&finished.outcome);
        let times = Some(Times {
            queued: finished.queue_time,
            duration: finished.run_time,
        });
        let end = EndEvent {
            outcome,
            times,
            text,
        };
        self.record(callback, EventKind::Ended(end));
    }

    fn skipped(&self, callback: &CallbackInfo<'_>, _: &Completion) {
        self.did_not_run(callback, Outcome::Skipped);
    }

    fn cancelled(&self, callback: &CallbackInfo<'_>) {
        self.did_not_run(callback, Outcome::Cancelled);
    }

    fn lost(&self, callback: &CallbackInfo<'_>, reason: LostReason) {
        let end = EndEvent {
            outcome: Outcome::Lost,
            times: None,
            text: reason.to_string(),
        };
        self.record(callback, EventKind::Ended(end));
    }
}

impl Default for Live {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Live {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Live").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, thread};

    use axum::{body::Body, extract::Request, routing::get};
    use axum_defer::{DeferLayer, defer};
    use serde_json::Value;
    use tower::ServiceExt;

    use super::*;
    use crate::{
        recorder::QUEUE_CAPACITY,
        snapshot::{Filter, Snapshot},
        snapshot_json::snapshot_json,
        views,
    };

    /// Each callback is registered, completed with its scope, started, and finished.
    const CALLBACKS: usize = 25_000;
    const EVENTS: usize = 2 * 4 * CALLBACKS;
    const EVERYTHING: Filter = Filter {
        since: 0,
        max_requests: usize::MAX,
    };

    fn run_callbacks(live: Live) {
        let layer = DeferLayer::new().observer(live);
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        runtime.unwrap().block_on(async {
            for _ in 0..CALLBACKS {
                layer
                    .scope(async { drop(defer(async {}).name("mail")) })
                    .await;
            }
        });
    }

    fn spawn_two(live: &Live) -> mpsc::Receiver<()> {
        let (done, both) = mpsc::channel();
        for _ in 0..2 {
            let (live, done) = (live.clone(), done.clone());
            thread::spawn(move || {
                run_callbacks(live);
                done.send(()).unwrap();
            });
        }
        both
    }

    #[test]
    fn observer_never_waits_for_a_locked_record() {
        let live = Live::new();
        live.recorder.with_record(|_| {
            let both = spawn_two(&live);
            for _ in 0..2 {
                let hang = Duration::from_secs(100);
                both.recv_timeout(hang).expect("an observer waits");
            }
        });
        let snapshot = live
            .recorder
            .with_record(|record| Snapshot::new(record, EVERYTHING));
        let dropped = (EVENTS - QUEUE_CAPACITY) as u64;
        assert_eq!(snapshot.version, QUEUE_CAPACITY as u64);
        assert_eq!(snapshot.counts.events_dropped, dropped);
        let text = format!("<strong>{dropped}</strong> events were dropped");
        assert!(views::limits(&snapshot).contains(&text));
        let json: Value = serde_json::from_str(&snapshot_json(&snapshot)).unwrap();
        assert_eq!(json["counts"]["events_dropped"], dropped);
    }

    #[test]
    fn concurrent_events_are_recorded_or_dropped() {
        let live = Live::new().max_names(1);
        let both = spawn_two(&live);
        let mut ended = 0;
        while ended < 2 {
            let snapshot = live
                .recorder
                .with_record(|record| Snapshot::new(record, EVERYTHING));
            assert!(snapshot.requests.len() <= 1_000);
            ended += both.try_iter().count();
        }
        let total = live
            .recorder
            .with_record(|record| record.version + record.counts.events_dropped);
        assert_eq!(total, EVENTS as u64);
    }

    #[test]
    fn queued_event_keeps_no_request_memory() {
        const PATH_BYTES: usize = 60_000;
        let live = Live::new();
        let layer = DeferLayer::new().observer(live.clone());
        let handle = layer.handle();
        let app: Router = Router::new()
            .route("/{path}", get(async || drop(defer(async {}))))
            .layer(layer);
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        let runtime = runtime.unwrap();
        let send = || {
            let path = format!("/{}", "x".repeat(PATH_BYTES));
            let request = Request::get(path).body(Body::empty()).unwrap();
            runtime.block_on(async {
                drop(app.clone().oneshot(request).await);
                handle.wait_idle().await;
            });
        };
        send();
        let memory = live
            .recorder
            .with_record(|_| allocation_counter::measure(|| (0..100).for_each(|_| send())));
        assert!(memory.bytes_current < 10 * PATH_BYTES as i64, "{memory:?}");
        let queued = live.recorder.with_record(|record| record.counts.registered);
        assert_eq!(queued, 101);
    }
}

//! A page that shows what is deferred, live. Feature `live`.
//!
//! [`Live`] is an observer with a bounded record, in memory, and a `Router` to look at it:
//!
//! ```no_run
//! use std::net::SocketAddr;
//!
//! use axum::{Router, routing::post};
//! use axum_defer::{DeferLayer, defer, live::Live};
//!
//! async fn sign_up() -> &'static str {
//!     defer(async { /* send a mail */ }).name("welcome mail");
//!     "welcome"
//! }
//!
//! # #[tokio::main]
//! # async fn main() -> std::io::Result<()> {
//! let live = Live::new();
//! let app: Router = Router::new()
//!     .route("/sign-up", post(sign_up))
//!     .layer(DeferLayer::new().observer(live.clone()))
//!     .nest("/admin/deferred", live.only_loopback());
//!
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
//! axum::serve(listener, app.into_make_service_with_connect_info::<SocketAddr>()).await?;
//! # Ok(()) }
//! ```
//!
//! `cargo run --example live --features live` has traffic to look at.
//!
//! # What it shows
//!
//! - **Now**: what runs and what waits, for how long, of which request.
//! - **Requests**: a picture of each one that deferred something: the handler, the sending of the
//!   response, then each callback as a bar, coloured by its outcome.
//! - **Failures**: what failed, timed out, panicked or was lost, with the error's whole text and that
//!   of its sources.
//! - **By name**: how many, how many failed, the 50th, 95th and 99th percentile of waiting and
//!   running (less than an eighth too low), and the last five minutes as a sparkline.
//!
//! Names, outcomes and routes can be filtered by, and it can be paused. Without JavaScript, the page
//! shows the same, and is reloaded by hand. `snapshot.json` beside it has the whole record for
//! scripts: all durations in microseconds, all times in microseconds since 1970.
//!
//! # Who may see it
//!
//! Nobody, until it is said: [`Live::only_loopback`] or [`Live::allow`] make the router, and nothing
//! else does. It can only be read: anything but GET is a 405. It sets no cookies, loads nothing
//! from elsewhere, and its `Content-Security-Policy` allows no script but its own file. Names, paths
//! and errors are shown as text. They may tell more than they should: whoever may read the log may
//! see this page.
//!
//! All its addresses are relative, so it works nested in other routers, and behind a proxy that adds
//! a prefix to paths or takes one off. `/admin/deferred` redirects to `/admin/deferred/view`, which is
//! the page. Nest it beside the layer, as above, and it does not record itself.
//!
//! Its stream of events ends when a server of [`axum_defer::serve`](crate::serve()) shuts down, with
//! feature `serve`. Other servers wait for their connections; browsers that look at it are such.
//!
//! # What it costs
//!
//! The record is bounded: 1,000 requests, each with up to 100 callbacks, and 200 failures, unless
//! [`requests`](Live::requests) and [`failures`](Live::failures) say otherwise. A request in which
//! something runs or waits stays in it; when all are such, new ones are not recorded. Texts are cut:
//! names at 120 bytes, paths at 300, errors at 8 KiB. What fell out, or found no room, is counted, and
//! the page says so.
//!
//! Nothing waits for it. An event is written down under a lock that nobody waits for: while
//! somebody else has it, up to 4,096 events are put aside, and what finds no room there is dropped,
//! counted, and shown. Room for requests is made for 1,000 at a time and used again, so that
//! writing down a callback allocates nothing: it takes about 1,000 instructions, of registration,
//! decision, start and end together (`cargo bench --package axum-defer-benches --bench counted --features live`). Events that are put aside
//! and failures do allocate.
//!
//! A layer without observer costs the same with this feature and without.
//!
//! At most 16 browsers get events at the same time.

use std::{fmt, sync::Arc, time::Duration};

use axum::Router;
use http::request::Parts;

use self::{
    access::Access,
    cause::failure,
    end::End,
    inbox::Inbox,
    record::{Limits, Record},
    told::{Ending, Message, What},
};
use crate::{
    completion::Completion,
    observe::{
        callback_info::CallbackInfo,
        observer::DeferObserver,
        outcome::{Finished, LostReason},
        scope_info::ScopeInfo,
    },
};

mod access;
mod cause;
mod document;
mod end;
mod events;
mod histogram;
mod html;
mod inbox;
mod index;
mod json;
mod names;
mod parts;
mod recent;
mod record;
mod request;
mod requests;
mod router;
mod snapshot;
mod text;
mod told;

const NAMES: usize = 100;

/// A bounded record of what is deferred, and the page that shows it. See the
/// [module](crate::live).
///
/// Clones are the same record. It may observe several layers.
///
/// ```
/// use axum::{Router, routing::get};
/// use axum_defer::{DeferLayer, live::Live};
///
/// let live = Live::new().requests(5_000).failures(1_000).names(50);
/// let app: Router = Router::new()
///     .route("/", get(|| async { "hello" }))
///     .layer(DeferLayer::new().observer(live.clone()))
///     .nest("/admin/deferred", live.only_loopback());
/// # let _ = app;
/// ```
#[derive(Clone)]
pub struct Live {
    inbox: Arc<Inbox>,
}

impl Live {
    /// A record of the last 1,000 requests and 200 failures.
    ///
    /// ```
    /// use axum_defer::{DeferLayer, live::Live};
    ///
    /// let live = Live::new().requests(5_000).failures(1_000);
    /// let layer = DeferLayer::new().observer(live.clone());
    /// let admin: axum::Router = live.only_loopback();
    /// # let _ = (layer, admin);
    /// ```
    pub fn new() -> Self {
        let limits = Limits {
            requests: 1_000,
            failures: 200,
        };
        Self {
            inbox: Arc::new(Inbox::new(Record::new(limits, NAMES))),
        }
    }

    /// Keeps at most so many requests. Each takes about 500 bytes, and 100 for each callback. A
    /// record that has more already keeps them.
    #[must_use]
    pub fn requests(self, requests: usize) -> Self {
        self.inbox.look(|record| record.requests.limit = requests);
        self
    }

    /// Keeps at most so many failures, each with its text.
    #[must_use]
    pub fn failures(self, failures: usize) -> Self {
        self.inbox.look(|record| record.failures_limit = failures);
        self
    }

    /// Counts at most so many names by themselves, 100 by default; the others are counted together.
    /// Each takes 3 KiB. Callbacks without a name count by the place where they were deferred.
    #[must_use]
    pub fn names(self, names: usize) -> Self {
        self.inbox.look(|record| record.names.limit = names);
        self
    }

    /// The page, for those who come from this machine.
    ///
    /// It has to be known who comes: serve the app with
    /// `app.into_make_service_with_connect_info::<SocketAddr>()`, or every request is refused with
    /// a text that says so. To a proxy on the same machine everybody comes from there: requests
    /// with a header that proxies set (`Forwarded`, `X-Forwarded-For`, `X-Real-IP`, `Via`) are refused,
    /// but a proxy that sets none lets everybody in. Behind a proxy, use [`allow`](Self::allow).
    /// Requests to another host than `localhost` or a loopback address are refused too.
    pub fn only_loopback<S>(&self) -> Router<S>
    where
        S: Clone + Send + Sync + 'static,
    {
        router::router(self.inbox.clone(), Access::OnlyLoopback)
    }

    /// The page, for those whom `allowed` says so of; it is asked for each request, on the task
    /// that serves it, and others get a 403.
    ///
    /// ```
    /// use axum::{Router, http::request::Parts};
    /// use axum_defer::live::Live;
    ///
    /// /// What a layer that signs users in puts into the extensions.
    /// #[derive(Clone)]
    /// struct Admin;
    ///
    /// let live = Live::new();
    /// let admin: Router = live.allow(|parts: &Parts| parts.extensions.get::<Admin>().is_some());
    /// # let _ = admin;
    /// ```
    pub fn allow<S>(&self, allowed: impl Fn(&Parts) -> bool + Send + Sync + 'static) -> Router<S>
    where
        S: Clone + Send + Sync + 'static,
    {
        router::router(self.inbox.clone(), Access::If(Arc::new(allowed)))
    }

    fn ended(&self, callback: &CallbackInfo<'_>, ending: &Ending<'_>) {
        match self.inbox.try_open() {
            Some(mut opened) => opened.0.ended(callback, ending, None),
            None => {
                let what = What::Ended(ending.end, ending.times, ending.text.into());
                self.inbox.put_aside(Message::of(callback, what));
            }
        }
    }

    fn did_not_run(&self, callback: &CallbackInfo<'_>, end: End) {
        self.ended(callback, &Ending::without_run(end));
    }
}

impl DeferObserver for Live {
    fn registered(&self, callback: &CallbackInfo<'_>) {
        match self.inbox.try_open() {
            Some(mut opened) => opened.0.registered(callback, None),
            None => self
                .inbox
                .put_aside(Message::of(callback, What::Registered)),
        }
    }

    fn completed(&self, scope: &ScopeInfo, completion: &Completion) {
        let (number, answered) = (scope.number(), scope.answered());
        match self.inbox.try_open() {
            Some(mut opened) => opened.0.decided(number, answered, completion),
            None => self
                .inbox
                .put_aside(Message::Decided(number, answered, *completion)),
        }
    }

    fn replaced(&self, callback: &CallbackInfo<'_>) {
        self.did_not_run(callback, End::Replaced);
    }

    fn deduplicated(&self, callback: &CallbackInfo<'_>) {
        self.did_not_run(callback, End::Duplicate);
    }

    fn started(&self, callback: &CallbackInfo<'_>, waited: Duration) {
        match self.inbox.try_open() {
            Some(mut opened) => opened.0.started(callback, waited, None),
            None => self
                .inbox
                .put_aside(Message::of(callback, What::Started(waited))),
        }
    }

    fn finished(&self, callback: &CallbackInfo<'_>, finished: &Finished<'_>) {
        let times = Some((finished.queue_time, finished.run_time));
        if finished.is_ok() {
            let (end, text) = (End::Ok, "");
            self.ended(callback, &Ending { end, times, text });
        } else if let Some((end, text)) = failure(&finished.outcome) {
            let text = &text;
            self.ended(callback, &Ending { end, times, text });
        }
    }

    fn skipped(&self, callback: &CallbackInfo<'_>, _: &Completion) {
        self.did_not_run(callback, End::Skipped);
    }

    fn cancelled(&self, callback: &CallbackInfo<'_>) {
        self.did_not_run(callback, End::Cancelled);
    }

    fn lost(&self, callback: &CallbackInfo<'_>, reason: LostReason) {
        let ending = Ending {
            end: End::Lost,
            times: None,
            text: &reason.to_string(),
        };
        self.ended(callback, &ending);
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

    use super::{inbox::WAITING, parts::summary, snapshot::Snapshot, snapshot::Wanted, *};
    use crate::{defer, layer::DeferLayer};

    /// Each is registered, decided, started and finished.
    const CALLBACKS_EACH: usize = 25_000;
    const EVENTS: usize = 2 * 4 * CALLBACKS_EACH;
    /// Nothing here takes long; who waits for this waits in vain.
    const IN_VAIN: Duration = Duration::from_secs(100);

    fn run_callbacks(live: Live) {
        let layer = DeferLayer::new().observer(live);
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        runtime.unwrap().block_on(async {
            for _ in 0..CALLBACKS_EACH {
                layer
                    .scope(async { drop(defer(async {}).name("mail")) })
                    .await;
            }
        });
    }

    #[test]
    fn while_somebody_has_the_record_nothing_waits_and_what_has_no_room_is_counted_as_dropped() {
        let live = Live::new();
        let (done, both) = mpsc::channel();
        live.inbox.look(|_| {
            for _ in 0..2 {
                let (live, done) = (live.clone(), done.clone());
                thread::spawn(move || {
                    run_callbacks(live);
                    done.send(()).unwrap();
                });
            }
            for _ in 0..2 {
                both.recv_timeout(IN_VAIN).expect("nothing waits");
            }
        });
        let wanted = Wanted {
            since: 0,
            requests: usize::MAX,
        };
        let snapshot = live.inbox.look(|record| Snapshot::of(record, wanted));
        assert_eq!(snapshot.version, WAITING as u64);
        assert_eq!(snapshot.dropped, (EVENTS - WAITING) as u64);
        let said = format!("<strong>{}</strong> events were dropped", snapshot.dropped);
        assert!(summary::bounds(&snapshot).contains(&said));
        let said = format!("\"events_dropped\":{}", snapshot.dropped);
        assert!(document::snapshot(&snapshot).contains(&said));
    }

    #[test]
    fn what_two_threads_tell_is_recorded_or_counted_as_dropped_and_never_takes_more_room() {
        let live = Live::new().names(1);
        let (done, both) = mpsc::channel();
        for _ in 0..2 {
            let (live, done) = (live.clone(), done.clone());
            thread::spawn(move || {
                run_callbacks(live);
                done.send(()).unwrap();
            });
        }
        drop(done);
        let wanted = Wanted {
            since: 0,
            requests: usize::MAX,
        };
        let mut ended = 0;
        while ended < 2 {
            let snapshot = live.inbox.look(|record| Snapshot::of(record, wanted));
            assert!(snapshot.requests.len() <= 1_000);
            ended += both.try_iter().count();
        }
        let told = live.inbox.look(|record| record.version + record.dropped);
        assert_eq!(told, EVENTS as u64);
    }
}

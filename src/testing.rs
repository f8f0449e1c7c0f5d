//! Testing an app that defers.
//!
//! Feature `testing`, for the `[dev-dependencies]`:
//!
//! ```toml
//! [dev-dependencies]
//! axum-defer = { version = "0.1", features = ["testing"] }
//! ```
//!
//! # What ran, without a server
//!
//! [`DeferLayer::inline`] runs callbacks before the response is returned, so when `oneshot` is
//! done they are. Each is isolated as ever: a callback that panics fails alone. A [`Recorder`]
//! writes down what becomes of each, by name.
//!
//! ```
//! use axum::{Router, body::Body, extract::Request, http::StatusCode, routing::post};
//! use axum_defer::{DeferLayer, defer, testing::Recorder};
//! use tower::ServiceExt;
//!
//! async fn sign_up() -> StatusCode {
//!     defer(async { /* send the welcome mail */ }).name("mail");
//!     defer(async { /* write to the log */ }).name("audit").always();
//!     StatusCode::CONFLICT
//! }
//!
//! /// The app takes its layer from outside, so that a test can hand in one of its own.
//! fn app(deferred: DeferLayer) -> Router {
//!     Router::new().route("/sign-up", post(sign_up)).layer(deferred)
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let recorder = Recorder::new();
//! let app = app(DeferLayer::new().inline().observer(recorder.clone()));
//!
//! let request = Request::post("/sign-up").body(Body::empty()).unwrap();
//! let response = app.oneshot(request).await.unwrap();
//!
//! assert_eq!(response.status(), StatusCode::CONFLICT);
//! recorder.assert_ran(["audit"]);
//! recorder.assert_skipped(["mail"]);
//! # }
//! ```
//!
//! The response has not been sent when callbacks run inline, so they are told what can be known:
//! its status, no bytes, and that it was delivered. In particular:
//!
//! - What a streaming body defers while it is polled comes too late to run inline. It runs on a
//!   task, as does what is deferred through a collection that was kept; so does everything when
//!   the response future is dropped, by a time-out in a layer outside, say. Wait for it with
//!   [`DeferHandle::wait_idle`].
//! - A grpc-status in the headers counts, one in the trailers is not there yet: the HTTP status
//!   stands. To test a stream that fails half-way, run in real time.
//! - A callback that waits for something that the test does after `oneshot` waits for ever.
//!
//! # In real time
//!
//! Without `inline` everything is as in production, and the test waits with a
//! [handle](crate::DeferLayer::handle). Read the response to its end or drop it first: callbacks wait
//! for it, and the test for them.
//!
//! ```
//! use axum::{Router, body::Body, extract::Request, routing::get};
//! use axum_defer::{DeferLayer, defer, testing::Recorder};
//! use http_body_util::BodyExt;
//! use tower::ServiceExt;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let recorder = Recorder::new();
//! let layer = DeferLayer::new().observer(recorder.clone());
//! let deferred = layer.handle();
//! let app: Router = Router::new()
//!     .route("/", get(|| async { defer(async {}).name("mail"); "hello" }))
//!     .layer(layer);
//!
//! let request = Request::get("/").body(Body::empty()).unwrap();
//! let response = app.oneshot(request).await.unwrap();
//! recorder.assert_ran([]);
//! let body = response.into_body().collect().await.unwrap().to_bytes();
//! deferred.wait_idle().await;
//!
//! assert_eq!(body, "hello");
//! recorder.assert_ran(["mail"]);
//! # }
//! ```
//!
//! [`DeferHandle::drain`] waits no longer than it is told, and names what it did not wait for. A
//! server on a free port of 127.0.0.1 is tested in the same way.
//!
//! # Time-outs
//!
//! All times are those of Tokio's clock. When it is
//! [paused](https://docs.rs/tokio/latest/tokio/time/fn.pause.html), an hour is over at once:
//!
//! ```
//! use std::time::Duration;
//! use axum_defer::{DeferLayer, defer, testing::Recorder};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() {
//! // In a test: #[tokio::test(start_paused = true)]
//! let recorder = Recorder::new();
//! let layer = DeferLayer::new()
//!     .timeout(Duration::from_secs(30))
//!     .observer(recorder.clone());
//!
//! layer
//!     .scope(async {
//!         defer(tokio::time::sleep(Duration::from_secs(3600))).name("report");
//!         defer(async {}).name("mail");
//!     })
//!     .await;
//!
//! recorder.assert_failed(["report"]);
//! assert_eq!(recorder.failure("report").unwrap(), "timed out after 30s");
//! recorder.assert_ran(["mail"]);
//! # }
//! ```
//!
//! # Code that is no handler
//!
//! A function that calls [`defer`](crate::defer()) needs a scope, and
//! [`DeferLayer::scope`] opens one, as above: no request, no router.
//!
//! [`DeferLayer::inline`]: crate::DeferLayer::inline
//! [`DeferLayer::handle`]: crate::DeferLayer::handle
//! [`DeferLayer::scope`]: crate::DeferLayer::scope
//! [`DeferHandle::wait_idle`]: crate::DeferHandle::wait_idle
//! [`DeferHandle::drain`]: crate::DeferHandle::drain

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::{
    completion::{Completion, Delivery},
    observe::{CallbackInfo, DeferObserver, Finished, LostReason},
};

/// Writes down what becomes of each callback, and asserts.
///
/// Clones share what is written. Callbacks go by their [name](crate::DeferredCallback::name);
/// those without one go by the place where `defer` was called, as `file:line`. See
/// [the module](self) for how to use it.
///
/// When an assertion fails, its message tells everything that was recorded.
#[derive(Clone, Default)]
pub struct Recorder {
    events: Arc<Mutex<Vec<Recorded>>>,
}

/// Something that happened to a callback.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Recorded {
    /// The name of the callback; without one, where `defer` was called, as `file:line`.
    pub callback: String,
    /// What happened to it.
    pub event: Event,
}

/// What can happen to a callback; see [`DeferObserver`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// It was registered.
    Registered,
    /// It started.
    Started,
    /// It ran to a good end.
    Ran,
    /// It returned an error, panicked or timed out; this is what it said.
    Failed(String),
    /// The rule kept it from running for this completion.
    Skipped(Completion),
    /// It was cancelled or forgotten.
    Cancelled,
    /// A later one took its name.
    Replaced,
    /// It should have run and could not.
    Lost(LostReason),
}

impl Event {
    /// Whether nothing more can happen to the callback.
    pub fn is_end(&self) -> bool {
        !matches!(self, Self::Registered | Self::Started)
    }
}

impl fmt::Display for Event {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Registered => formatter.write_str("registered"),
            Self::Started => formatter.write_str("started"),
            Self::Ran => formatter.write_str("ran"),
            Self::Failed(failure) => write!(formatter, "failed: {failure}"),
            Self::Skipped(completion) => {
                formatter.write_str("skipped: ")?;
                match (completion.status(), completion.delivery()) {
                    (Some(status), delivery) => write!(
                        formatter,
                        "the response was a {}, delivery {delivery:?}",
                        status.as_u16()
                    ),
                    (None, Delivery::NoResponse) => formatter.write_str("there was no response"),
                    (None, _) if completion.is_success() => {
                        formatter.write_str("the unit of work succeeded")
                    }
                    (None, _) => formatter.write_str("the unit of work failed"),
                }
            }
            Self::Cancelled => formatter.write_str("cancelled"),
            Self::Replaced => formatter.write_str("replaced by a later one of its name"),
            Self::Lost(reason) => write!(formatter, "lost: {reason}"),
        }
    }
}

impl fmt::Display for Recorded {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.callback, self.event)
    }
}

impl Recorder {
    /// A recorder with an empty record.
    pub fn new() -> Self {
        Self::default()
    }

    /// All that happened, in order.
    pub fn events(&self) -> Vec<Recorded> {
        self.lock().clone()
    }

    /// Forgets what happened so far: between two parts of a test.
    pub fn clear(&self) {
        self.lock().clear();
    }

    /// The callbacks that were registered, in order.
    ///
    /// A callback counts from the moment at which the handle that `defer` returned is dropped.
    pub fn registered(&self) -> Vec<String> {
        self.all(|event| matches!(event, Event::Registered))
    }

    /// The callbacks that started, in order.
    pub fn started(&self) -> Vec<String> {
        self.all(|event| matches!(event, Event::Started))
    }

    /// The callbacks that ran to a good end, in the order in which they ended.
    pub fn ran(&self) -> Vec<String> {
        self.all(|event| matches!(event, Event::Ran))
    }

    /// The callbacks that returned an error, panicked or timed out, in order.
    pub fn failed(&self) -> Vec<String> {
        self.all(|event| matches!(event, Event::Failed(_)))
    }

    /// What the callback of this name failed with, the last time that it did.
    pub fn failure(&self, callback: &str) -> Option<String> {
        self.lock()
            .iter()
            .rev()
            .find_map(|recorded| match &recorded.event {
                Event::Failed(failure) if recorded.callback == callback => Some(failure.clone()),
                _ => None,
            })
    }

    /// The callbacks that the rule kept from running, in order.
    pub fn skipped(&self) -> Vec<String> {
        self.all(|event| matches!(event, Event::Skipped(_)))
    }

    /// The callbacks that were cancelled or forgotten, in order.
    pub fn cancelled(&self) -> Vec<String> {
        self.all(|event| matches!(event, Event::Cancelled))
    }

    /// The callbacks whose name was taken by a later one, in order.
    pub fn replaced(&self) -> Vec<String> {
        self.all(|event| matches!(event, Event::Replaced))
    }

    /// The callbacks that should have run and could not, in order.
    pub fn lost(&self) -> Vec<String> {
        self.all(|event| matches!(event, Event::Lost(_)))
    }

    /// The callbacks that were registered and have not come to an end yet.
    pub fn unfinished(&self) -> Vec<String> {
        let mut unfinished = Vec::new();
        for recorded in &*self.lock() {
            if recorded.event == Event::Registered {
                unfinished.push(recorded.callback.clone());
            } else if recorded.event.is_end() {
                // Of several requests' callbacks of one name it makes no difference which.
                let place = unfinished
                    .iter()
                    .position(|callback| *callback == recorded.callback);
                place.map(|place| unfinished.remove(place));
            }
        }
        unfinished
    }

    /// Panics unless exactly these callbacks ran to a good end, in this order.
    #[track_caller]
    pub fn assert_ran<const N: usize>(&self, callbacks: [&str; N]) {
        self.assert("ran", &self.ran(), &callbacks);
    }

    /// Panics unless exactly these callbacks failed, in this order.
    #[track_caller]
    pub fn assert_failed<const N: usize>(&self, callbacks: [&str; N]) {
        self.assert("failed", &self.failed(), &callbacks);
    }

    /// Panics unless exactly these callbacks were kept from running by the rule, in this order.
    #[track_caller]
    pub fn assert_skipped<const N: usize>(&self, callbacks: [&str; N]) {
        self.assert("were skipped", &self.skipped(), &callbacks);
    }

    /// Panics unless exactly these callbacks were cancelled or forgotten, in this order.
    #[track_caller]
    pub fn assert_cancelled<const N: usize>(&self, callbacks: [&str; N]) {
        self.assert("were cancelled", &self.cancelled(), &callbacks);
    }

    /// Panics unless exactly these callbacks were replaced, in this order.
    #[track_caller]
    pub fn assert_replaced<const N: usize>(&self, callbacks: [&str; N]) {
        self.assert("were replaced", &self.replaced(), &callbacks);
    }

    /// Panics if a callback failed.
    #[track_caller]
    pub fn assert_nothing_failed(&self) {
        self.assert("failed", &self.failed(), &[]);
    }

    /// Panics if a callback that should have run could not, or if one has not come to its end.
    #[track_caller]
    pub fn assert_nothing_lost(&self) {
        self.assert("were lost", &self.lost(), &[]);
        self.assert("are unfinished", &self.unfinished(), &[]);
    }

    #[track_caller]
    fn assert(&self, what: &str, actual: &[String], expected: &[&str]) {
        assert!(
            actual == expected,
            "callbacks that {what}\n     found: {}\n  expected: {}\n{self}",
            Listed(actual),
            Listed(expected),
        );
    }

    fn all(&self, is_meant: impl Fn(&Event) -> bool) -> Vec<String> {
        self.lock()
            .iter()
            .filter(|recorded| is_meant(&recorded.event))
            .map(|recorded| recorded.callback.clone())
            .collect()
    }

    fn record(&self, callback: &CallbackInfo<'_>, event: Event) {
        let callback = match callback.name() {
            Some(name) => name.to_owned(),
            None => {
                let location = callback.location();
                format!("{}:{}", location.file(), location.line())
            }
        };
        self.lock().push(Recorded { callback, event });
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Recorded>> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Listed<'a, T>(&'a [T]);

impl<T: fmt::Debug> fmt::Display for Listed<'_, T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            formatter.write_str("none")
        } else {
            write!(formatter, "{:?}", self.0)
        }
    }
}

/// The record as a failed assertion shows it.
impl fmt::Display for Recorder {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let events = self.events();
        if events.is_empty() {
            return formatter.write_str(
                "nothing was recorded: is the recorder an observer of the layer that the request \
                 went through?",
            );
        }
        formatter.write_str("recorded:")?;
        for recorded in events {
            write!(formatter, "\n  {recorded}")?;
        }
        let unfinished = self.unfinished();
        if !unfinished.is_empty() {
            write!(
                formatter,
                "\nnot at their end yet: {unfinished:?}; without `inline()`, read the response to \
                 its end or drop it, then await `handle.wait_idle()`",
            )?;
        }
        Ok(())
    }
}

impl fmt::Debug for Recorder {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Recorder")
            .field("events", &*self.lock())
            .finish()
    }
}

impl DeferObserver for Recorder {
    fn registered(&self, callback: &CallbackInfo<'_>) {
        self.record(callback, Event::Registered);
    }

    fn replaced(&self, callback: &CallbackInfo<'_>) {
        self.record(callback, Event::Replaced);
    }

    fn started(&self, callback: &CallbackInfo<'_>, _waited: Duration) {
        self.record(callback, Event::Started);
    }

    fn finished(&self, callback: &CallbackInfo<'_>, finished: &Finished<'_>) {
        let event = if finished.is_ok() {
            Event::Ran
        } else {
            Event::Failed(finished.outcome.to_string())
        };
        self.record(callback, event);
    }

    fn skipped(&self, callback: &CallbackInfo<'_>, completion: &Completion) {
        self.record(callback, Event::Skipped(*completion));
    }

    fn cancelled(&self, callback: &CallbackInfo<'_>) {
        self.record(callback, Event::Cancelled);
    }

    fn lost(&self, callback: &CallbackInfo<'_>, reason: LostReason) {
        self.record(callback, Event::Lost(reason));
    }
}

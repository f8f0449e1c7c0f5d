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
//! its status, the length of its body where the body knows it, and that it was delivered. In
//! particular:
//!
//! - What a streaming body defers while it is polled comes too late to run inline. It runs on a
//!   task, as does what is deferred through a collection that was kept; so does everything when
//!   the response future is dropped, by a time-out in a layer outside, say. Wait for it with
//!   [`DeferHandle::wait_idle`].
//! - A grpc-status in the headers counts, one in the trailers is not there yet: the HTTP status
//!   stands. To test a stream that fails half-way, run in real time.
//! - A callback that waits for something that the test does after `oneshot` waits for ever.
//!
//! # A rule by itself
//!
//! What is given to [`DeferredCallback::when`](crate::DeferredCallback::when) is a function of a
//! [`Completion`](crate::Completion), and [`completion()`] makes one.
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

mod completion;
mod event;
mod recorder;

pub use self::{
    completion::{CompletionBuilder, completion},
    event::{Event, Recorded},
    recorder::Recorder,
};

//! Runs work after the HTTP response has been sent: Laravel's `defer()` for [axum], [tonic] and
//! every other [Tower] stack.
//!
//! A handler that sends a mail, writes an audit log or refreshes a cache lets its client wait for
//! something that the client has no interest in. Add one layer, and say `defer` instead of `.await`:
//!
//! ```no_run
//! use axum::{Router, routing::post};
//! use axum_defer::{DeferLayer, defer};
//!
//! # async fn send_welcome_mail() {}
//! # async fn audit(_: &str) {}
//! async fn sign_up() -> &'static str {
//!     defer(send_welcome_mail());                        // only if the response was a success
//!     defer(audit("sign-up")).name("audit").always();    // whatever happened
//!     "welcome"
//! }
//!
//! # #[tokio::main]
//! # async fn main() -> std::io::Result<()> {
//! let app = Router::new().route("/sign-up", post(sign_up)).layer(DeferLayer::new());
//! # let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
//! axum::serve(listener, app).await?;
//! # Ok(()) }
//! ```
//!
//! `cargo run --example quickstart` shows what happens when.
//!
//! # What is promised
//!
//! | promise | in detail |
//! |---|---|
//! | Exactly once | However a response ends, and whatever else happens at that moment, its callbacks are decided on once, and each runs at most once. |
//! | Nobody waits | Callbacks run on a task of their own: neither the client nor the next request on its connection waits for them. |
//! | After the end | They start when the response [is over](guide::end_of_response); with [`serve()`] that means when the operating system [has its last byte](guide::end_of_response#two-levels-of-sent). |
//! | Only if it went well | By default they run if the response was a success, [or as the callback says](guide::which_callbacks_run). |
//! | In order, by name | [First come, first run](guide::which_callbacks_run#order); a name is there once. |
//! | Before the answer, if it must | [`before_response`](before_response()) runs before the client sees any of the response, which becomes a 503 if it fails. |
//! | Each for itself | A callback that panics, fails or takes too long [ends alone](guide::which_callbacks_run#each-for-itself). |
//! | Nothing is lost in silence | What does not run was skipped, cancelled, replaced, a duplicate or lost, and each of these is [reported](guide::observing) with its reason. |
//! | Bounded, if you say so | How long, how many at once, how much at all: [limits](guide::limits). |
//! | Nothing is forgotten at shutdown | [A drain](guide::shutdown) waits for what was deferred, and names what it could not wait for. |
//! | The response stays as it is | Status, headers, frames, trailers, size hint, back-pressure and errors pass through unchanged. |
//!
//! The README names for each promise the test that pins it.
//!
//! # When not to use it
//!
//! - **The work must survive a crash.** What is deferred lives in memory. Give it to a job queue
//!   *before* you answer, with [`before_response`](before_response()), or write it in the handler's
//!   transaction: [how sure must it be](guide::durability)? A queue also retries, schedules, and
//!   spreads work over machines; this crate does none of that.
//! - **The client has to know whether it worked.** Await it, then answer.
//! - **It takes minutes.** A deployment waits for it, or cuts it off. Use a queue.
//! - **It has nothing to do with the response.** [`tokio::spawn`] is simpler, and starts at once.
//!
//! [Compared](guide::deferring#compared) with `tokio::spawn`, tower-http's `on_early_drop` and a job queue.
//!
//! # Where to read on
//!
//! | to | read |
//! |---|---|
//! | defer something | [what can be deferred](guide::deferring), from where, and work that is no request |
//! | know what will happen | [which callbacks run](guide::which_callbacks_run), in which order; [when a response is over](guide::end_of_response) |
//! | write a callback | [what it may hold](guide::resources), and for how long; [request data in callbacks](guide::migrating#request-data-in-callbacks) |
//! | lose nothing | [how sure must it be](guide::durability): `before_response`, an outbox, a queue |
//! | add the layer | [layer order](guide::layer_order): where it goes, beside which others; [limits](guide::limits) |
//! | run it | [the server](mod@serve), with TLS, Unix sockets, slow clients; [shutdown](guide::shutdown); [platforms](guide::platforms) |
//! | look at it | [spans, events, metrics, observers](guide::observing); [the live view](https://docs.rs/axum-defer-live) |
//! | test an app | [testing] |
//! | translate | [coming from](guide::migrating) Laravel, Starlette, Next.js, Express, PHP-FPM, `tokio::spawn` |
//! | use another server | [the parts](sent) that see when the operating system has the bytes |
//!
//! # Features
//!
//! | feature | default | what it adds |
//! |---|---|---|
//! | `axum` | yes | [`DeferredCallbackCollection`] as an extractor |
//! | `serve` | yes | [`serve()`] and [`Shutdown`] |
//! | `tracing` | yes | spans and events |
//! | `metrics` | no | metrics, through the [`metrics`](https://docs.rs/metrics) facade |
//! | `matched-path` | with `serve` | [`RequestInfo::route`] |
//! | `testing` | no | `DeferLayer::inline` and the [`testing`] module |
//!
//! Without any of them it works on every `tower_service::Service<http::Request<_>>` whose response
//! body is an `http_body::Body`. It needs a Tokio runtime, with its time driver where there is a
//! time-out; or something else to run callbacks on, with [`DeferLayer::spawn_with`].
//!
//! [axum]: https://docs.rs/axum
//! [tonic]: https://docs.rs/tonic
//! [Tower]: https://docs.rs/tower
//! [`tokio::spawn`]: https://docs.rs/tokio/latest/tokio/fn.spawn.html
#![forbid(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]
// The pages of the guide link to what only other features have.
#![cfg_attr(
    not(all(feature = "serve", feature = "metrics", feature = "testing")),
    allow(rustdoc::broken_intra_doc_links)
)]
#![cfg_attr(not(test), warn(clippy::unwrap_used))]

mod callback;
mod catch_panic;
mod clock;
mod completion;
mod defer;
mod drain;
mod extensions;
pub mod guide;

mod layer;
#[cfg(all(test, axum_defer_loom))]
mod model;
mod never;
mod observe;
mod response;
mod runner;
mod scope;
#[cfg(feature = "sent")]
pub mod sent;
#[cfg(not(feature = "sent"))]
#[path = "sent/disabled.rs"]
mod sent;
#[cfg(feature = "serve")]
pub mod serve;
mod service;
mod sync;
#[cfg(feature = "testing")]
pub mod testing;

#[cfg(feature = "axum")]
pub use self::defer::extract::MissingDeferLayer;
#[cfg(feature = "serve")]
#[doc(inline)]
pub use self::serve::{
    serve,
    shutdown::{Shutdown, ShutdownObserver},
    signals::shutdown_signal,
};
pub use self::{
    callback::{
        deferrable::Deferrable,
        output::{BoxError, CallbackOutput, CallbackResult},
        wrap::CallbackFuture,
    },
    completion::{Completion, Delivery, Level},
    defer::{
        NoScopeError,
        before_response::{
            BeforeResponseError, before_response, before_response_blocking, try_before_response,
        },
        blocking::DeferrableBlocking,
        collection::DeferredCallbackCollection,
        defer, defer_blocking, defer_or_spawn,
        handle::{BeforeResponseCallback, DeferredCallback},
        in_scope::{InScope, ScopedFuture},
        scope::{ScopeOutput, scope},
        try_defer,
    },
    drain::report::{DrainReport, UnfinishedCallback},
    layer::{
        DeferLayer,
        handle::{CallbackCounts, DeferHandle},
    },
    observe::{
        callback_info::CallbackInfo,
        observer::DeferObserver,
        outcome::{Finished, LostReason, Outcome},
        phase::Phase,
        scope_info::{RequestInfo, ScopeInfo},
    },
    runner::before::BeforeResponseFailed,
    service::{Defer, body::ResponseBody, future::ResponseFuture},
};
/// Classifiers for [`DeferLayer::classifier`]: tower-http's module, in the version that this crate
/// uses.
///
/// ```
/// use axum_defer::{DeferLayer, classify::ServerErrorsAsFailures};
///
/// // A 404 is a success here.
/// let layer = DeferLayer::new().classifier(ServerErrorsAsFailures::make_classifier());
/// # let _ = layer;
/// ```
pub use tower_http::classify;

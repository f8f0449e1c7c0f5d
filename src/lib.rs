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
//!     defer(async { send_welcome_mail().await });                        // only if the response was a success
//!     defer(async { audit("sign-up").await }).name("audit").always();    // whatever happened
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
//! `cargo run --example quickstart` shows what happens when; [`coming_from`] translates from Laravel,
//! Starlette, Next.js, Express and PHP-FPM; [`how_sure`] is about work that a crash must not lose.
//!
//! # What is promised
//!
//! | promise | in detail |
//! |---|---|
//! | Exactly once | However a response ends, and whatever else happens at that moment, its callbacks are decided on once, and each runs at most once. |
//! | Nobody waits | Callbacks run on a task of their own: neither the client nor the next request on its connection waits for them. |
//! | After the end | They start when the response [is over](#when-a-response-is-over); with [`serve()`] that means when the operating system [has its last byte](#two-levels-of-sent). |
//! | Only if it went well | By default they run if the response was a success, [or as the callback says](#which-callbacks-run). |
//! | In order, by name | [First come, first run](#names-order-and-nesting); a name is there once. |
//! | Each for itself | A callback that panics, fails or takes too long [ends alone](#each-for-itself). |
//! | Nothing is lost in silence | What does not run was skipped, cancelled, replaced, a duplicate or lost, and each of these is [reported](#watching) with its reason. |
//! | Nothing is forgotten at shutdown | [A drain](#shutdown) waits for what was deferred, and names what it could not wait for. |
//! | The response stays as it is | Status, headers, frames, trailers, size hint, back-pressure and errors pass through unchanged. |
//!
//! What is deferred lives in memory: a process that is killed, or crashes, takes it along. See
//! [when not to use it](#when-not-to-use-it).
//!
//! # What can be deferred
//!
//! A future, a closure that makes one, or a closure that takes the [`Completion`], to [`defer`]; a
//! closure that blocks, to [`defer_blocking`]. All of them may return `()`, or a `Result<(), E>`
//! whose error is reported. Where a `?` is in the block, its last line says what the errors become;
//! and the type of a closure's argument has to be written:
//!
//! ```
//! use axum_defer::{BoxError, Completion, defer, defer_blocking};
//!
//! # async fn mail(_: &str) -> Result<(), std::io::Error> { Ok(()) }
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! # axum_defer::scope(async {
//! # let to = String::from("ada@example.org");
//! defer(async move {
//!     mail(&to).await?;
//!     mail("postmaster@example.org").await?;
//!     Ok::<_, BoxError>(())
//! });
//! defer(|| async { /* what is built here costs nothing when the callback is skipped */ });
//! defer(|completion: Completion| async move {
//!     println!("{:?} after {:?}", completion.status(), completion.elapsed());
//! });
//! defer_blocking(|| std::fs::remove_file("/tmp/upload"));
//! # }).await;
//! # }
//! ```
//!
//! [`defer`] finds the request by itself, in the handler and in whatever the handler calls or awaits.
//! A task that was spawned is outside of it: move a [`DeferredCallbackCollection`] there, which is an
//! extractor, and in the extensions of the request. [`try_defer`] is for code that may also run
//! outside of a request.
//!
//! A callback owns what it uses, and runs outside of the request. [How to carry request data into a
//! callback](coming_from#request-data-in-callbacks) has the details, [`DeferLayer::wrap`] included.
//!
//! # Which callbacks run
//!
//! | the response | runs |
//! |---|---|
//! | a success: a status below 400, or grpc-status 0 with [`DeferLayer::new_for_grpc`] | all |
//! | any other | those that are [`always`](DeferredCallback::always) |
//! | none: the client went away and the server dropped the handler, the handler panicked, or a service failed | those that are `always` |
//! | a success, but the client went away in the middle of it | all: the handler's work was done |
//!
//! [`DeferredCallback::when`] sets a rule for one callback, and [`DeferLayer::when`] for all that
//! have none: `.when(|c| c.is_success() && c.is_delivered())` is for what makes sense only if the
//! whole response was sent, [as far as that is known](#two-levels-of-sent).
//! [`DeferLayer::classifier`] says what a success is.
//!
//! A client that goes away *before* the response takes its handler along, at whichever `.await` it
//! is. [`DeferLayer::run_to_completion`] is for handlers that must not be cut in two;
//! [`DeferredCallbackCollection::client_gone`] tells them.
//!
//! # Before the response
//!
//! [`before_response`](before_response()) is the counterpart of [`defer`](defer()), for what the
//! client must not be told before it has happened: a commit, a job that is handed to a queue. The
//! response waits for it, and becomes a 503 if it fails. [How sure must it be](how_sure)? says when
//! to take which.
//!
//! # Names, order and nesting
//!
//! - The callbacks of a request run one after the other, in the order in which they were registered;
//!   with [`DeferLayer::concurrent`], side by side.
//! - Of two callbacks with the same [name](DeferredCallback::name), the later one stays, at its own
//!   place and with its own rule. A name is there once per request;
//!   [`unique`](DeferredCallback::unique), once in the whole layer.
//! - [`forget`](DeferredCallbackCollection::forget) takes a callback out by its name, and
//!   [`cancel`](DeferredCallback::cancel) by its handle: also from inside another callback, as long
//!   as it has not started.
//! - `defer` inside a callback, a blocking one included, or inside a streaming body, joins the same
//!   request.
//! - A callback that another task defers does not start before its
//!   [handle](DeferredCallback) is dropped; those behind it do.
//! - What comes through a [`DeferredCallbackCollection`] when all the others have run is run at once,
//!   under the same [`Completion`].
//! - Of two layers on the path of a request, the inner one owns what the handler defers.
//!
//! # When a response is over
//!
//! The end of a body is often not where one would look for it: hyper polls few bodies to their end,
//! and drops most of them before. This is what the layer takes for the end, with HTTP/1.1 and HTTP/2:
//!
//! | response | is over | [`Delivery`] |
//! |---|---|---|
//! | `&str`, `Json`, any body in memory | at its last frame, after which `is_end_stream()` is true | `Sent` |
//! | an empty body | when the server takes the response: it never polls the body | `Sent` |
//! | HEAD, 204, 304, 1xx, CONNECT with 2xx | when the body is dropped unpolled, as it should be [^bodiless] | `Sent` |
//! | 101, a WebSocket say | when the handshake is answered, not when the socket closes | `Sent` |
//! | a stream with a `Content-Length` | when that many bytes were taken | `Sent` |
//! | any other stream, server-sent events too | at the end of the stream | `Sent` |
//! | a body with trailers, gRPC say | at the trailers, which are classified | `Sent` |
//! | a body that yields an error, or less than its `Content-Length` | at the error | `BodyError` |
//! | a body that is dropped before its end: the client went away | when it is dropped | `Aborted` |
//! | no response: the handler was dropped, panicked, or a service failed | when its future is dropped | `NoResponse` |
//!
//! [^bodiless]: Over HTTP/2, hyper 1.12 sends the body of a HEAD, a 204 or a 304 all the same, unless
//!     the body says that it is over. (axum empties that of a HEAD, and leaves the others alone.) Such a
//!     body is polled, its bytes reach the client and are counted, and its last frame is the end.
//!
//! ## Two levels of sent
//!
//! By then the server has taken the last frame. Where its bytes are is another matter: of a large
//! response to a slow reader, nearly all of them may still be in the process. So there are two levels,
//! and the [`Completion`] says [which one](Completion::level) decided it:
//!
//! - [`Level::HandedOver`]: the server has taken the last frame. This is what a Tower layer can see,
//!   and so what `.layer(DeferLayer::new())` gives with every server.
//! - [`Level::Sent`]: the operating system has accepted the last byte, and the connection was flushed
//!   after it; or the connection was lost before, which is [`Delivery::Aborted`] then. This is what
//!   [`serve()`] gives, in the place of `axum::serve`; servers of your own get it from the parts in
//!   [`sent`].
//!
//! A callback that exits the process, deletes the file that is being sent, or bills a download needs
//! the second one.
//!
//! Neither of them can mean that the client has the response. What the operating system has accepted
//! is in its buffers, on the way, or in those of the client, which may still go away: of a download
//! of 8 MiB, a slow reader had read 5.6 MB when it was `Sent`. Only the client can say that it has
//! everything, in a request of its own.
//!
//! ```no_run
//! # use axum::{Router, routing::get};
//! # use axum_defer::DeferLayer;
//! # async fn example(listener: tokio::net::TcpListener) {
//! # async fn archive() {}
//! let app = Router::new().route("/archive", get(archive)).layer(DeferLayer::new());
//! axum_defer::serve(listener, app).await;
//! # }
//! ```
//!
//! How it knows, and why it watches the consumption of buffers rather than their release, is told in
//! the docs of the [`sent`] module; so is the one case where it may be early, by the few bytes that
//! end an HTTP/2 response.
//!
//! # Each for itself
//!
//! - A panic or an `Err` is reported, and the next callback runs. A predicate, an observer, or a
//!   destructor that panics does no harm either.
//! - [`DeferLayer::timeout`] and [`DeferredCallback::timeout`] end one callback, and no other.
//! - [`DeferLayer::max_concurrency`] bounds how many requests' callbacks run at once; the others wait
//!   in order. A [`DeferLayer::scope`] inside of a callback runs in the callback's place.
//! - [`DeferLayer::max_pending`] bounds how much is deferred at all: new requests wait then (Tower's
//!   back-pressure), or get a 503 at once with `tower::load_shed`. Nothing is thrown away, and memory
//!   stays bounded.
//! - A callback shares its thread with the server. What computes for long belongs to
//!   [`defer_blocking`].
//!
//! There is no limit by default.
//!
//! # Watching
//!
//! - Feature `tracing`: a span `deferred` per callback, which follows from the span of the request
//!   and does not stretch it, and [events](#spans-and-events) inside of it.
//! - Feature `metrics`: `deferred_callbacks_total{outcome, phase}` (ok, error, panicked, timed_out,
//!   skipped, cancelled, replaced, duplicate, lost), `deferred_callback_waiting_seconds`,
//!   `deferred_callback_running_seconds`, `deferred_callbacks_pending`, `deferred_callbacks_running`.
//! - A [`DeferObserver`] of your own, with [`DeferLayer::observer`].
//! - [`DeferLayer::handle`] counts what is pending and running, and waits until nothing is.
//!
//! ## Spans and events
//!
//! All of them have a target below `axum_defer`, so `axum_defer=debug` is a filter that shows them.
//!
//! | what | level | fields |
//! |---|---|---|
//! | span `deferred`, from `defer` to the end of the callback | info | `method`, `path` (the route, where there is one) and `request_id` of the request, where there is one; `scope`, a number; `phase`, which is `before` for [`before_response`]; `name` if it has one; `place`; `outcome` |
//! | `deferred callback failed`: an error, a panic, a time-out | error | `callback`, `place`, `outcome` (`error: out of ink`), `took` |
//! | `deferred callback lost` | error | `callback`, `place`, `reason` |
//! | `deferred callback skipped` | debug | `callback`, `place`, `status` if there was a response, `success`, `delivery` |
//! | `deferred callback cancelled` | debug | `callback`, `place` |
//! | `deferred callback replaced by a later one of the same name` | debug | `callback`, `place` |
//! | `deferred callback not run: one of its name is pending or running` | debug | `callback`, `place` |
//!
//! `callback` is the name, or `unnamed`; `place` is where `defer` was called. The span's `outcome` is
//! that of the metrics, `ok` included: a callback that ran well is no event. What the callback itself
//! logs is inside of the span, which [`DeferLayer::span`] replaces. Where spans at info level are
//! off, the events are told without one.
//!
//! # Shutdown
//!
//! A graceful shutdown of [`serve()`] waits for callbacks too, and returns a [`DrainReport`]; streams
//! and sockets without an end hear of it by [`Shutdown`], an extractor. With another server, call
//! [`DeferHandle::drain`] when it has stopped. [`mod@serve`] has the details, and what else the server
//! can do: TLS, Unix sockets, slow clients, settings.
//!
//! ```no_run
//! use std::time::Duration;
//! # use axum::Router;
//! # use axum_defer::DeferLayer;
//! # async fn stop_signal() {}
//! # async fn example(listener: tokio::net::TcpListener, app: Router) {
//! let report = axum_defer::serve(listener, app.layer(DeferLayer::new()))
//!     .with_graceful_shutdown(stop_signal())
//!     .drain_timeout(Duration::from_secs(20))
//!     .await;
//! println!("{report}");
//! # }
//! ```
//!
//! Where a process is frozen or ended as soon as it has answered, [`DeferLayer::wait_until`] tells the
//! platform for how long it is needed: see [`platforms`].
//!
//! # Work that is no request
//!
//! [`scope()`] gives a command, a job from a queue or a scheduled task the same `defer`; it returns
//! when the callbacks have run. [`DeferLayer::scope`] does so with the limits, the observers and the
//! handle of a layer.
//!
//! # When not to use it
//!
//! - **The work must survive a crash.** Give it to a job queue *before* you answer, with
//!   [`before_response`](before_response()), or write it in the handler's transaction: [how sure must
//!   it be](how_sure)? What is only deferred dies with the process. A queue also retries, schedules, and spreads work over machines;
//!   this crate does none of that.
//! - **The client has to know whether it worked.** Await it, then answer.
//! - **It takes minutes.** A deployment waits for it, or cuts it off. Use a queue.
//! - **It has nothing to do with the response.** [`tokio::spawn`] is simpler, and starts at once.
//!
//! | | `defer` | `tokio::spawn` in the handler | tower-http's `on_early_drop` | a job queue |
//! |---|---|---|---|---|
//! | starts | when the response is over | at once, beside the handler | when a response was dropped early | when a worker is free |
//! | knows how the response ended | yes | no | that it was not whole, for which it also takes a HEAD response and a stream with a `Content-Length` | no |
//! | runs if the handler fails later on | if you say so | yes | does not apply | yes |
//! | a failure is | reported | in a `JoinHandle` that nobody awaits | yours to handle | retried |
//! | a graceful shutdown | waits for it | cuts it off | does not apply | leaves it for later |
//! | is bounded | if you say so | no | it is done at once | by the workers |
//! | survives a crash | no | no | no | yes |
//!
//! # Testing
//!
//! Feature `testing`: the `testing` module tells how to test an app that defers, and has a recorder
//! that asserts by name.
//!
//! # Features
//!
//! | feature | default | what it adds |
//! |---|---|---|
//! | `axum` | yes | [`DeferredCallbackCollection`] as an extractor |
//! | `serve` | yes | [`serve()`] and [`Shutdown`] |
//! | `tracing` | yes | spans and events |
//! | `metrics` | no | metrics, through the [`metrics`](https://docs.rs/metrics) facade |
//! | `testing` | no | `DeferLayer::inline` and the `testing` module |
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
#![cfg_attr(not(test), warn(clippy::unwrap_used))]

mod callback;
mod clock;
pub mod coming_from;
mod completion;
mod defer;
mod drain;
pub mod how_sure;
mod isolate;
mod layer;
#[cfg(all(test, axum_defer_loom))]
mod model;
mod never;
mod observe;
pub mod platforms;
mod response;
mod runner;
mod scope;
pub mod sent;
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
pub use self::serve::{serve, shutdown::Shutdown};
pub use self::{
    callback::{
        callback_future::CallbackFuture,
        deferrable::Deferrable,
        output::{BoxError, CallbackEnd, CallbackOutput},
    },
    completion::{Completion, Delivery, Level},
    defer::{
        NoScope,
        before_response::{NoHead, before_response, before_response_blocking, try_before_response},
        blocking::DeferrableBlocking,
        collection::DeferredCallbackCollection,
        defer, defer_blocking,
        deferred_callback::DeferredCallback,
        scope::{UnitOutput, scope},
        try_defer,
    },
    drain::{
        defer_handle::DeferHandle,
        report::{DrainReport, UnfinishedCallback},
    },
    layer::DeferLayer,
    observe::{
        callback_info::CallbackInfo,
        observer::DeferObserver,
        outcome::{Finished, LostReason, Outcome},
        phase::Phase,
        scope_info::RequestInfo,
    },
    runner::before::BeforeResponseFailed,
    service::{Defer, body::ResponseBody, response_future::ResponseFuture},
};
/// What tells success from failure, for [`DeferLayer::classifier`]: tower-http's own module, of
/// the version that this crate uses.
pub use tower_http::classify;

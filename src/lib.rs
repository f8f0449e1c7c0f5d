//! Runs work after the HTTP response has been sent, for [axum], [tonic], and any [Tower] service.
//!
//! ```no_run
//! # #[cfg(feature = "serve")]
//! use std::time::Duration;
//! # #[cfg(feature = "serve")]
//! use axum::{Router, routing::post};
//! # #[cfg(feature = "serve")]
//! use axum_defer::{DeferLayer, defer, shutdown_signal};
//!
//! # #[cfg(feature = "serve")]
//! async fn sign_up() -> &'static str {
//!     defer(async { println!("welcome mail") }); // if the response succeeds
//!     defer(async { println!("audit log") }).always(); // even if the response fails
//!     "welcome\n"
//! }
//!
//! # #[cfg(feature = "serve")]
//! #[tokio::main]
//! async fn main() -> std::io::Result<()> {
//!     let layer = DeferLayer::new();
//!     let deferred = layer.handle();
//!     let app = Router::new().route("/", post(sign_up)).layer(layer);
//!     let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
//!     axum::serve(listener, app).with_graceful_shutdown(shutdown_signal()).await?;
//!     println!("{}", deferred.drain(Duration::from_secs(20)).await);
//!     Ok(())
//! }
//! # #[cfg(not(feature = "serve"))]
//! # fn main() {}
//! ```
//!
//! With [`serve()`] instead of `axum::serve`, callbacks run after the operating system has accepted the
//! last byte of the response. The graceful shutdown drains them.
//!
//! # Guarantees
//!
//! - **At most once.** A callback runs at most once. If it does not run, it is [reported](guide::observing)
//!   as skipped, cancelled, replaced, deduplicated, or lost, unless the process is killed.
//! - **After the response.** Callbacks run on their own task when the response
//!   [has ended](guide::end_of_response). Neither the client nor the next request on its connection
//!   waits for them.
//! - **Only on success.** By default, callbacks run if the status is below 400 or, over gRPC, the
//!   grpc-status is 0. A callback can have [another rule](guide::which_callbacks_run).
//! - **Isolated.** A callback that panics, fails, or times out does not affect the others.
//! - **Limited.** Optional [limits](guide::limits) bound the run time, the concurrency, and the number of
//!   callbacks.
//! - **Drained.** [`serve()`] and [`DeferHandle::drain`] wait for callbacks at
//!   [shutdown](guide::shutdown), and list those that did not finish.
//! - **Transparent.** Status, headers, frames, trailers, and errors pass through unchanged, unless a
//!   [`before_response`](before_response()) callback fails.
//!
//! # When not to use it
//!
//! - The work must survive a crash. Callbacks are kept in memory, and are not retried. Use
//!   [`before_response`](before_response()) and a queue, or an outbox: see [durability](guide::durability).
//! - The client needs the result. Await it.
//! - The work takes minutes. A shutdown would wait for it, or abort it.
//! - The work is unrelated to the response. [`tokio::spawn`] is simpler.
//!
//! # Guide
//!
//! | topic | pages |
//! |---|---|
//! | callbacks | [registering](guide::deferring), [rules, order, and names](guide::which_callbacks_run), [resources](guide::resources), [durability](guide::durability), [recipes](guide::recipes) |
//! | layer | [order of layers](guide::layer_order), [limits](guide::limits), [end of a response](guide::end_of_response) |
//! | operation | [server](mod@serve), [shutdown](guide::shutdown), [platforms](guide::platforms), [observing](guide::observing), [live view](https://docs.rs/axum-defer-live) |
//! | tests | [testing] |
//! | migration | [from Laravel, Starlette, Next.js, Express, PHP-FPM, and `tokio::spawn`](guide::migrating) |
//! | other servers | [sent] |
//!
//! # Features
//!
//! | feature | default | adds |
//! |---|---|---|
//! | `axum` | yes | [`DeferredCallbackCollection`] as an extractor |
//! | `serve` | yes | [`serve()`], [`Shutdown`], and [`shutdown_signal`]; enables `axum`, `sent`, and `matched-path` |
//! | `http2` | no | HTTP/2 for [`serve()`] |
//! | `sent` | yes, through `serve` | the [`sent`] module: flush detection for other servers |
//! | `matched-path` | yes, through `serve` | [`RequestInfo::route`] |
//! | `tracing` | yes | spans and events |
//! | `metrics` | no | metrics, through the [`metrics`](https://docs.rs/metrics) facade |
//! | `testing` | no | [`DeferLayer::inline`] and the [`testing`] module |
//!
//! With or without features, the layer wraps any `tower_service::Service<http::Request<_>>`. The response body
//! must implement `http_body::Body` with an error type that implements `Display`.
//!
//! Callbacks run on the Tokio runtime on which the first `defer` of the request was called, or on the executor
//! passed to [`DeferLayer::spawn_with`]. Timeouts need Tokio's time driver.
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
// Its examples use these features.
#[cfg(any(not(doctest), all(feature = "serve", feature = "testing")))]
pub mod guide;

mod layer;
// shuttle has the API of loom that the models use.
#[cfg(all(test, axum_defer_shuttle))]
extern crate shuttle as loom;

#[cfg(all(test, axum_defer_loom))]
mod loom_models;
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
pub use self::defer::collection::MissingDeferLayer;
#[cfg(feature = "serve")]
#[doc(inline)]
pub use self::serve::{
    os_signal::shutdown_signal,
    serve,
    shutdown::{Shutdown, ShutdownObserver},
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
        deferred_callback::{BeforeResponseCallback, DeferredCallback},
        in_scope::{InScope, ScopedFuture},
        scope::{ScopeOutput, scope},
        try_defer,
    },
    drain::report::{DrainReport, UnfinishedCallback},
    layer::{
        DeferLayer,
        defer_handle::{CallbackCounts, DeferHandle},
    },
    observe::{
        callback_info::{CallbackInfo, Phase},
        observer::DeferObserver,
        outcome::{Finished, LostReason, Outcome},
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

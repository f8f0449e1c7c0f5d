//! A live view of deferred callbacks: an observer for [`axum_defer`] and a page that shows what runs,
//! what waits, and what failed.
//!
//! ```no_run
//! use std::net::SocketAddr;
//!
//! use axum::{Router, routing::post};
//! use axum_defer::{DeferLayer, defer};
//! use axum_defer_live::Live;
//!
//! async fn sign_up() -> &'static str {
//!     defer(async { /* send an email */ }).name("welcome email");
//!     "welcome"
//! }
//!
//! # #[tokio::main]
//! # async fn main() -> std::io::Result<()> {
//! let live = Live::new();
//! let app: Router = Router::new()
//!     .route("/sign-up", post(sign_up))
//!     .layer(DeferLayer::new().observer(live.clone()))
//!     .nest("/admin/deferred", live.loopback_router());
//!
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
//! axum::serve(listener, app.into_make_service_with_connect_info::<SocketAddr>()).await?;
//! # Ok(()) }
//! ```
//!
//! `cargo run --example live` in the repository sends itself traffic to look at.
//!
//! # Views
//!
//! - **Now**: running and pending callbacks, with their age and request.
//! - **Requests**: a waterfall for each request that deferred something: the handler, the response,
//!   and each callback as a bar, colored by its outcome.
//! - **Failures**: callbacks that failed, timed out, panicked, or were lost, with the error and its
//!   sources.
//! - **By name**: counts, the 50th, 95th, and 99th percentile of the time in the queue and of the
//!   duration (too low by less than an eighth), and the last five minutes as a sparkline.
//!
//! You can filter by name, outcome, and route, and pause the page. It also works without JavaScript,
//! but you reload it yourself. `snapshot.json`, next to the page, has the whole record for scripts.
//! Its durations are in microseconds, and its times in microseconds since 1970.
//!
//! # Access
//!
//! The page is closed by default: only [`Live::loopback_router`] and [`Live::router_if`] return a
//! router, and both check each request. Choose `router_if` behind a proxy, because
//! [`loopback_router` cannot recognize every proxy](Live::loopback_router).
//!
//! The page is read-only: methods other than GET get a 405. It sets no cookies and loads nothing from
//! other origins. Its `Content-Security-Policy` allows no script but its own file. Names, paths, and
//! errors are shown as text, and invisible characters in them are replaced. They may contain
//! sensitive data, so show the page only to people with access to your logs.
//!
//! All URLs in the page are relative. It works inside other routers, and behind proxies that change
//! the path. `/admin/deferred` redirects to the page at `/admin/deferred/view`. Nest it next to the
//! layer, as above, so that it does not record itself.
//!
//! With the feature `serve`, the event stream ends when a server of `axum_defer::serve` shuts down.
//! Other servers wait for open streams.
//!
//! # Limits
//!
//! | what | limit |
//! |---|---|
//! | requests | 1,000 ([`Live::max_requests`]), with 100 callbacks each |
//! | failures | 200 ([`Live::max_failures`]) |
//! | names with statistics | 100 ([`Live::max_names`]) |
//! | names of callbacks | 120 bytes |
//! | paths and routes | 300 bytes |
//! | methods, request IDs | 20 bytes, 80 bytes |
//! | errors, with their sources | 8 KiB |
//! | viewers of the event stream | 16 |
//!
//! Text is copied and truncated, so the record does not keep the memory of requests alive. A request
//! with pending or running callbacks is not evicted. If the record is full of such requests, new ones
//! are not recorded. The page shows how much was evicted or not recorded.
//!
//! # Cost
//!
//! Callbacks and requests never wait for the record. While the page copies it, up to 4,096 events are
//! queued. Further events are dropped and counted. Slots for requests are allocated 1,000 at a time
//! and reused, so recording a callback usually allocates nothing. Failures and queued events do
//! allocate.
//!
//! # Features
//!
//! | feature | default | description |
//! |---|---|---|
//! | `serve` | yes | ends the event stream when `axum_defer::serve` shuts down |
#![forbid(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![cfg_attr(not(test), warn(clippy::unwrap_used))]

mod access;
mod error_text;
mod event;
mod histogram;
mod html;
mod live;
mod names;
mod outcome;
mod record;
mod recorder;
mod request;
mod requests;
mod router;
mod snapshot;
mod snapshot_json;
mod sparkline;
mod sse;
mod truncate;
mod views;
mod waterfall;

pub use self::live::Live;

/// Compiles the code in the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}

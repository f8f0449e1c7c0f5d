//! Detects when the operating system has accepted a response.
//!
//! A Tower layer sees the server take the last frame of a body. The bytes may still be in the server's
//! buffers then, and a client that stopped reading keeps them there. The types in this module follow
//! them further. `axum_defer::serve` uses them for you. With another server, wrap the IO of each
//! connection in a [`SentIo`], and the service of the same connection in its
//! [`layer`](SentIo::layer), outside every other layer. Callbacks of a
//! [`DeferLayer`](crate::DeferLayer) inside then run when the transport has accepted and flushed the
//! last byte of the response, or when the connection was lost before that. A server cannot know whether
//! the client has received the bytes: they may still be in the buffers of the operating systems.
//!
//! ```no_run
//! use axum::{Router, body::Body, routing::get};
//! use axum_defer::{DeferLayer, sent::SentIo};
//! use hyper_util::{
//!     rt::{TokioExecutor, TokioIo},
//!     server::conn::auto::Builder,
//!     service::TowerToHyperService,
//! };
//! use tower::{Layer, ServiceExt};
//!
//! # async fn example() -> std::io::Result<()> {
//! let app: Router = Router::new()
//!     .route("/", get(|| async { "hello" }))
//!     .layer(DeferLayer::new());
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
//! loop {
//!     let (stream, _) = listener.accept().await?;
//!     let io = SentIo::new(stream);
//!     let service = io
//!         .layer()
//!         .layer(app.clone())
//!         .map_request(|request: http::Request<hyper::body::Incoming>| request.map(Body::new));
//!     tokio::spawn(async move {
//!         let _ = Builder::new(TokioExecutor::new())
//!             .serve_connection_with_upgrades(TokioIo::new(io), TowerToHyperService::new(service))
//!             .await;
//!     });
//! }
//! # }
//! ```
//!
//! A Unix socket buffers about 200 kB that the peer has not read, and TCP buffers megabytes.
//!
//! The server must accept any [`Buf`](bytes::Buf) as the data of a body, as hyper and axum-server do.
//! tonic's server requires `Bytes`. Pass its routes to `axum_defer::serve` instead, with the feature
//! `http2`, as the router that `tonic::service::Routes::into_axum_router` returns.
//!
//! # How it works
//!
//! A response is complete when its body has ended, every buffer of it was consumed, and the connection
//! was flushed after that. The body's data frames are [`SentBuf`]s, which report their consumption
//! ([`Buf::advance`](bytes::Buf::advance)). hyper and h2 advance a buffer after its bytes were written,
//! or when they copy it to their next write, and flush afterwards in both cases. A buffer that is
//! dropped unconsumed was discarded because the client reset the stream or the connection broke, so
//! the response was aborted.
//!
//! Compared with watching for the release of a `Bytes`, this works for copied and for written buffers,
//! needs no allocation per frame, and distinguishes a reset from a delivery. A clone of the `Bytes`
//! that the app keeps delays nothing.
//!
//! The end of an HTTP/2 response without data of its own (its only HEADERS, its trailers, an empty DATA
//! frame) passes through h2's queue unseen. It is complete with the first flush that covers more bytes
//! of responses than were written when the server took it. Control frames do not count. If the client
//! resets the stream before that, h2 drops the end silently. The next flush after h2 has looked at its
//! queue then covers no more bytes, and the response was aborted. This may be early by those few bytes if
//! several responses share the connection, or if another thread writes the frame before the end while the
//! end is queued. It is never early by bytes of the body, and it never waits without a limit.
//!
//! Frames are watched only if the request has deferred something, or if they belong to an HTTP/2 stream
//! that continues and may still defer something.

mod activity;
mod body;
mod buf;
pub(crate) mod connection;
pub(crate) mod delivery;
mod flush;
mod frames;
pub(crate) mod io;
pub(crate) mod layer;
#[cfg(all(test, axum_defer_loom, not(axum_defer_shuttle)))]
mod loom_models;
pub(crate) mod response;
#[cfg(feature = "serve")]
pub(crate) mod streams;
#[cfg(all(test, not(axum_defer_loom)))]
mod tests;

#[cfg(feature = "serve")]
pub use self::io::SentListener;
pub use self::{
    body::SentBody,
    buf::SentBuf,
    io::SentIo,
    layer::{Sent, SentFuture, SentLayer},
};

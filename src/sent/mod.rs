//! The second level of "sent": the operating system has accepted the response.
//!
//! A Tower layer sees a server take the last frame of a body; up to then the bytes may all still
//! be in the server's buffers, and a client that stopped reading keeps them there. The parts in
//! this module see the rest. `axum_defer::serve` puts them together; with a server of your own,
//! wrap the IO of each connection in a [`SentIo`], and the service of the same connection in its
//! [`layer`](SentIo::layer), outside of everything else. A [`DeferLayer`](crate::DeferLayer)
//! inside then fires when the last byte of the response has been accepted by the transport and
//! flushed, or when the connection was lost before. That the client has received it is more than
//! that, and can't be known: the rest may lie in the buffers of the operating systems.
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
//! What the transport has accepted is not yet what the peer has read: it may lie in the buffers of the
//! operating system, 200 kB of it in those of a Unix socket, and megabytes with TCP.
//!
//! A server must take any [`Buf`](bytes::Buf) as the data of a body, as hyper and axum-server do.
//! tonic's own insists on `Bytes`; give its routes to `axum_defer::serve`, as the router that
//! `tonic::service::Routes::into_axum_router` makes of them.
//!
//! # How it knows
//!
//! A response is over when its body has ended, every buffer of it has been consumed, and the
//! connection was flushed after that. The body's data frames are [`SentBuf`]s, which see the
//! server consume them ([`Buf::advance`](bytes::Buf::advance)): hyper and h2 advance a buffer
//! after its bytes were written, or when they copy it to what they write next, and in both cases
//! flush afterwards. A buffer that is dropped unconsumed was thrown away (the client reset the
//! stream, or the connection broke), and the response was aborted.
//!
//! Watching the consumption rather than the release of a `Bytes` makes no difference between a
//! buffer that was copied and one that was written, needs no allocation per frame, and tells a
//! reset from a delivery; and whoever keeps a clone of the `Bytes` delays nothing.
//!
//! What ends an HTTP/2 response without data of its own (its only HEADERS, its trailers, an empty
//! DATA frame) passes through h2's queue unseen. Then the flush is awaited that covers more bytes
//! than had been written when the server took it. If the client resets the stream before that, h2
//! drops it in silence; then a flush comes, after a round in which h2 looked for something to write,
//! without a byte more, and the response was aborted. While several responses share the connection
//! that may be early by those few bytes, never by body bytes, and it can't wait for ever.
//!
//! Frames of requests that have deferred nothing are not watched, but for those of an HTTP/2 stream
//! that goes on and may yet defer something about them.

mod body;
mod buffer;
pub(crate) mod connection;
pub(crate) mod departure;
mod dialogue;
pub(crate) mod io;
pub(crate) mod layer;
#[cfg(feature = "serve")]
pub(crate) mod listener;
#[cfg(all(test, axum_defer_loom))]
mod model;
#[cfg(all(test, not(axum_defer_loom)))]
mod tests;
pub(crate) mod transmission;
mod wire;

#[cfg(feature = "serve")]
pub use self::listener::SentListener;
pub use self::{
    body::SentBody,
    buffer::SentBuf,
    io::SentIo,
    layer::{Sent, SentFuture, SentLayer},
};

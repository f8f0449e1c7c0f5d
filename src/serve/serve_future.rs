//! The future of a server.

use std::{
    fmt,
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll},
};

/// The future of [`Serve`](super::Serve) and [`WithGracefulShutdown`](super::WithGracefulShutdown).
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// use axum::Router;
/// use axum_defer::{DrainReport, serve::ServeFuture};
///
/// let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
/// let server = axum_defer::serve(listener, Router::new()).with_graceful_shutdown(async {});
/// let future: ServeFuture<DrainReport> = server.into_future();
/// assert!(future.await?.is_complete());
/// # Ok(()) }
/// ```
#[must_use = "a server does nothing until it is awaited"]
pub struct ServeFuture<T>(Pin<Box<dyn Future<Output = io::Result<T>> + Send>>);

impl<T> ServeFuture<T> {
    pub(super) fn new(serving: impl Future<Output = io::Result<T>> + Send + 'static) -> Self {
        Self(Box::pin(serving))
    }
}

impl<T> Future for ServeFuture<T> {
    type Output = io::Result<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        self.0.as_mut().poll(cx)
    }
}

impl<T> fmt::Debug for ServeFuture<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("ServeFuture")
            .finish_non_exhaustive()
    }
}

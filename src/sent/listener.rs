//! A listener that wraps its connections in [`SentIo`].

use std::{fmt, io};

use axum::serve::Listener;

use super::io::SentIo;

/// A listener that wraps every accepted connection in a [`SentIo`].
///
/// For accept loops of your own; [`serve`](crate::serve()) does this automatically.
///
/// ```no_run
/// use axum::serve::Listener;
/// use axum_defer::sent::SentListener;
/// use tower::Layer;
///
/// # async fn example(app: axum::Router) -> std::io::Result<()> {
/// let mut listener = SentListener::new(tokio::net::TcpListener::bind("127.0.0.1:3000").await?);
/// loop {
///     let (io, _) = listener.accept().await;
///     let service = io.layer().layer(app.clone());
///     // serve `io` with `service`, on a task
///     # let _ = service;
/// }
/// # }
/// ```
pub struct SentListener<L> {
    listener: L,
}

impl<L> SentListener<L> {
    /// Wraps a listener.
    pub fn new(listener: L) -> Self {
        Self { listener }
    }
}

impl<L: Listener> Listener for SentListener<L> {
    type Io = SentIo<L::Io>;
    type Addr = L::Addr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        let (io, address) = self.listener.accept().await;
        (SentIo::new(io), address)
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

impl<L: fmt::Debug> fmt::Debug for SentListener<L> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("SentListener")
            .field("listener", &self.listener)
            .finish_non_exhaustive()
    }
}

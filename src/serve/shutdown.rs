//! Notifies handlers and background tasks of the shutdown.

use std::{
    convert::Infallible,
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use axum_core::{
    extract::{FromRequestParts, OptionalFromRequestParts},
    response::{IntoResponse, Response},
};
use http::{Extensions, StatusCode, request::Parts};
use tokio_util::{
    sync::{CancellationToken, WaitForCancellationFutureOwned},
    task::task_tracker::TaskTrackerToken,
};

use crate::{drain::ShutdownSignal, sent::response::ResponseHandle};

/// A future that completes when the server shuts down. The server waits until it is dropped.
///
/// For work without an end of its own: server-sent events, long polls, WebSockets, background tasks.
/// It is an extractor for requests that come through [`serve`](crate::serve()); with another server,
/// the extractor responds with 500. Use `Option<Shutdown>` in apps that also run under another server,
/// [`Shutdown::of`] in middleware and services, and
/// [`Serve::shutdown`](crate::serve::Serve::shutdown) for background tasks.
/// [`ShutdownObserver`] is a future for which the server does not wait.
///
/// It completes when the signal of
/// [`with_graceful_shutdown`](crate::serve::Serve::with_graceful_shutdown) completes, or the server is
/// dropped. It may be polled again after that, and can be cloned at any time.
///
/// A stream of events that ends at the shutdown, so that the client receives the end of the response:
///
/// ```
/// use std::convert::Infallible;
/// use axum::response::sse::{Event, Sse};
/// use axum_defer::Shutdown;
/// use futures_util::stream::{Stream, StreamExt};
///
/// # fn prices() -> impl Stream<Item = Result<Event, Infallible>> { futures_util::stream::pending() }
/// async fn events(shutdown: Shutdown) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
///     Sse::new(prices().take_until(shutdown))
/// }
/// # let _ = axum::Router::<()>::new().route("/", axum::routing::get(events));
/// ```
///
/// A WebSocket that is closed properly, as in `examples/websocket`:
///
/// ```ignore
/// use axum::{extract::ws::{Message, WebSocket, WebSocketUpgrade}, response::Response};
/// use axum_defer::Shutdown;
///
/// async fn chat(upgrade: WebSocketUpgrade, shutdown: Shutdown) -> Response {
///     upgrade.on_upgrade(|socket| talk(socket, shutdown))
/// }
///
/// async fn talk(mut socket: WebSocket, mut shutdown: Shutdown) {
///     loop {
///         tokio::select! {
///             message = socket.recv() => match message {
///                 Some(Ok(Message::Text(text))) => {
///                     let _ = socket.send(Message::Text(text)).await;
///                 }
///                 Some(Ok(Message::Close(_)) | Err(_)) | None => return,
///                 Some(Ok(_)) => {}
///             },
///             () = &mut shutdown => {
///                 let _ = socket.send(Message::Close(None)).await;
///                 return;
///             }
///         }
///     }
/// }
/// ```
///
/// # Waiting for holders
///
/// A graceful shutdown waits until every `Shutdown` is dropped, up to its
/// [`drain_timeout`](crate::serve::WithGracefulShutdown::drain_timeout): in a handler, in a body, or in
/// a task. So it waits for upgraded connections, which the server does not own, if their task holds
/// one. The report [counts](crate::DrainReport::shutdown_guards) those that are left at the
/// deadline; the server cannot end tasks that it has not started.
///
/// `shutdown.await` consumes and drops it. Await `&mut shutdown` to do something after the signal, as
/// above.
#[must_use = "a future does nothing until it is awaited"]
#[derive(Clone)]
pub struct Shutdown {
    observer: ShutdownObserver,
    _guard: TaskTrackerToken,
}

impl Shutdown {
    /// Returns the shutdown of the server that received a request with these extensions; `None` if
    /// that is not [`serve`](crate::serve()).
    ///
    /// ```
    /// use axum::{extract::Request, middleware::Next, response::Response};
    /// use axum_defer::Shutdown;
    ///
    /// async fn middleware(request: Request, next: Next) -> Response {
    ///     let shutdown = Shutdown::of(request.extensions());
    ///     if shutdown.is_some_and(|shutdown| shutdown.is_shutting_down()) {
    ///         // For example, reject long work from now on.
    ///     }
    ///     next.run(request).await
    /// }
    /// # let _ = axum::Router::<()>::new().layer(axum::middleware::from_fn(middleware));
    /// ```
    pub fn of(extensions: &Extensions) -> Option<Self> {
        let response = extensions.get::<ResponseHandle>()?;
        response.shutdown_signal().map(Self::new)
    }

    pub(super) fn new(signal: &ShutdownSignal) -> Self {
        Self {
            observer: ShutdownObserver::new(signal),
            _guard: signal.guard(),
        }
    }

    /// Returns `true` if the server is shutting down, so that this future is ready.
    ///
    /// ```
    /// use axum::http::StatusCode;
    /// use axum_defer::Shutdown;
    ///
    /// async fn import(shutdown: Shutdown) -> StatusCode {
    ///     for _row in 0..1_000 {
    ///         if shutdown.is_shutting_down() {
    ///             return StatusCode::SERVICE_UNAVAILABLE;
    ///         }
    ///         // import one row
    ///     }
    ///     StatusCode::OK
    /// }
    /// # let _ = axum::Router::<()>::new().route("/", axum::routing::post(import));
    /// ```
    pub fn is_shutting_down(&self) -> bool {
        self.observer.is_shutting_down()
    }

    /// Returns a future that completes at the same time, and for which the server does not wait.
    ///
    /// ```
    /// use axum_defer::Shutdown;
    ///
    /// async fn stream(shutdown: Shutdown) {
    ///     let observer = shutdown.observer();
    ///     drop(shutdown);
    ///     tokio::spawn(observer);
    /// }
    /// # let _ = axum::Router::<()>::new().route("/", axum::routing::get(stream));
    /// ```
    pub fn observer(&self) -> ShutdownObserver {
        self.observer.clone()
    }
}

impl Future for Shutdown {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.observer).poll(cx)
    }
}

impl fmt::Debug for Shutdown {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Shutdown")
            .field("is_shutting_down", &self.is_shutting_down())
            .finish_non_exhaustive()
    }
}

/// A future that completes when the server shuts down, like [`Shutdown`], but the server does not wait
/// for it.
///
/// For tasks that only stop starting new work, and may be ended with the process.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// use axum::Router;
///
/// let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
/// let server = axum_defer::serve(listener, Router::new());
/// let observer = server.shutdown_observer();
/// assert!(!observer.is_shutting_down());
/// let refresher = tokio::spawn(async move {
///     tokio::select! {
///         () = observer => {}
///         () = std::future::pending() => {} // refreshes a cache now and then
///     }
/// });
///
/// server.with_graceful_shutdown(async {}).await?;
/// refresher.await?;
/// # Ok(()) }
/// ```
#[must_use = "a future does nothing until it is awaited"]
pub struct ShutdownObserver {
    token: CancellationToken,
    waiting: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
}

impl ShutdownObserver {
    pub(super) fn new(signal: &ShutdownSignal) -> Self {
        Self {
            token: signal.token().clone(),
            waiting: None,
        }
    }

    /// Returns `true` if the server is shutting down, so that this future is ready.
    pub fn is_shutting_down(&self) -> bool {
        self.token.is_cancelled()
    }
}

impl Future for ShutdownObserver {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        if !this.is_shutting_down() {
            let token = &this.token;
            let waiting = this
                .waiting
                .get_or_insert_with(|| Box::pin(token.clone().cancelled_owned()));
            ready!(waiting.as_mut().poll(cx));
        }
        this.waiting = None;
        Poll::Ready(())
    }
}

impl Clone for ShutdownObserver {
    fn clone(&self) -> Self {
        Self {
            token: self.token.clone(),
            waiting: None,
        }
    }
}

impl fmt::Debug for ShutdownObserver {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("ShutdownObserver")
            .field("is_shutting_down", &self.is_shutting_down())
            .finish_non_exhaustive()
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Shutdown {
    type Rejection = ShutdownRejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ShutdownRejection> {
        Self::of(&parts.extensions).ok_or(ShutdownRejection)
    }
}

impl<S: Send + Sync> OptionalFromRequestParts<S> for Shutdown {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Option<Self>, Infallible> {
        Ok(Self::of(&parts.extensions))
    }
}

/// Rejection of the extractor [`Shutdown`]: the request did not come through
/// [`serve`](crate::serve()). Responds with 500.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// use axum::{Router, body::Body, extract::Request, routing::get};
/// use axum_defer::{Shutdown, serve::ShutdownRejection};
/// use tower::ServiceExt;
///
/// let app: Router = Router::new().route("/", get(|_: Shutdown| async {}));
/// // Without `axum_defer::serve`:
/// let response = app.oneshot(Request::new(Body::empty())).await.unwrap();
/// assert_eq!(response.status(), 500);
/// assert!(ShutdownRejection.to_string().contains("serve the app with"));
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShutdownRejection;

impl fmt::Display for ShutdownRejection {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(
            "`Shutdown` was extracted, but the request did not come through `axum_defer::serve`: \
             serve the app with `axum_defer::serve(listener, app)`, or extract `Option<Shutdown>`",
        )
    }
}

impl std::error::Error for ShutdownRejection {}

impl IntoResponse for ShutdownRejection {
    fn into_response(self) -> Response {
        (StatusCode::INTERNAL_SERVER_ERROR, self.to_string()).into_response()
    }
}

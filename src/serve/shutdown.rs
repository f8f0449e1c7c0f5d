//! What tells a request that the server stops.

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

use crate::{drain::stopping::Stopping, sent::transmission::Transmission};

/// A future that is ready when the server stops; and as long as somebody has it, the server waits
/// for them.
///
/// For what has no end of its own: server-sent events, long polls, WebSockets. An extractor of
/// requests that come through [`serve`](crate::serve()); elsewhere it answers 500 and says so.
/// `Option<Shutdown>` is for apps that also run under another server, and [`Shutdown::of`] for
/// middleware and services that have the request.
///
/// It is ready when the signal of
/// [`with_graceful_shutdown`](crate::serve::Serve::with_graceful_shutdown) has come, or the server
/// was dropped, and stays so. It may be polled again, cloned before and after, and awaited by any
/// number of tasks.
///
/// A stream of events that ends by itself, so that its client gets the end of the response:
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
/// A WebSocket that says goodbye, as in `examples/websocket`:
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
/// # Who is waited for
///
/// A graceful shutdown waits, up to its
/// [`drain_timeout`](crate::serve::WithGracefulShutdown::drain_timeout), until no `Shutdown` is
/// held by anybody: in a handler, in a body, or in a task that the handler has started. So
/// upgraded connections, which a server loses sight of, are waited for if their task has one. What
/// is still held at the deadline is
/// [counted in the report](crate::DrainReport::shutdown_guards); the server can't end tasks
/// that it has not started.
///
/// It is held until it is dropped. `shutdown.await` takes it and lets go of it when it is ready;
/// who has something to do after that awaits `&mut shutdown`, as above.
///
/// A request that takes no `Shutdown` is not affected.
#[must_use = "a future does nothing until it is awaited"]
pub struct Shutdown {
    begun: CancellationToken,
    held: TaskTrackerToken,
    waiting: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
}

impl Shutdown {
    /// The shutdown of the server that a request with these extensions has come to;
    /// `None` if that is not [`serve`](crate::serve()).
    ///
    /// ```
    /// use axum::{extract::Request, middleware::Next, response::Response};
    /// use axum_defer::Shutdown;
    ///
    /// async fn middleware(request: Request, next: Next) -> Response {
    ///     let shutdown = Shutdown::of(request.extensions());
    ///     if shutdown.is_some_and(|shutdown| shutdown.is_shutting_down()) {
    ///         // Long work is refused from now on, say.
    ///     }
    ///     next.run(request).await
    /// }
    /// # let _ = axum::Router::<()>::new().layer(axum::middleware::from_fn(middleware));
    /// ```
    pub fn of(extensions: &Extensions) -> Option<Self> {
        let transmission = extensions.get::<Transmission>()?;
        transmission.stopping().map(Self::new)
    }

    fn new(stopping: &Stopping) -> Self {
        Self {
            begun: stopping.begun().clone(),
            held: stopping.hold(),
            waiting: None,
        }
    }

    /// Whether the server stops: whether this future is ready.
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
    ///         // one row, and some time
    ///     }
    ///     StatusCode::OK
    /// }
    /// # let _ = axum::Router::<()>::new().route("/", axum::routing::post(import));
    /// ```
    pub fn is_shutting_down(&self) -> bool {
        self.begun.is_cancelled()
    }
}

impl Future for Shutdown {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        if !this.is_shutting_down() {
            let begun = &this.begun;
            let waiting = this
                .waiting
                .get_or_insert_with(|| Box::pin(begun.clone().cancelled_owned()));
            ready!(waiting.as_mut().poll(cx));
        }
        this.waiting = None;
        Poll::Ready(())
    }
}

impl Clone for Shutdown {
    fn clone(&self) -> Self {
        Self {
            begun: self.begun.clone(),
            held: self.held.clone(),
            waiting: None,
        }
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

/// The request did not come through [`serve`](crate::serve()), so nobody would tell of a shutdown;
/// answers 500 and says what to do.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// use axum::{Router, body::Body, extract::Request, routing::get};
/// use axum_defer::Shutdown;
/// use tower::ServiceExt;
///
/// let app: Router = Router::new().route("/", get(|_: Shutdown| async {}));
/// // Not by way of `axum_defer::serve`:
/// let response = app.oneshot(Request::new(Body::empty())).await.unwrap();
/// assert_eq!(response.status(), 500);
/// assert!(axum_defer::serve::ShutdownRejection.to_string().contains("serve the app with"));
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

//! Results of units of work.

use std::{sync::Arc, time::Duration};

use http::StatusCode;

/// The result of one unit of work. It decides which callbacks run.
///
/// There is exactly one completion per scope. It is decided once, before the first callback of
/// the scope starts, and every callback of the scope sees the same one.
///
/// ```
/// use axum_defer::{Completion, defer, scope};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// scope(async {
///     defer(|completion: Completion| async move {
///         assert!(completion.is_success() && completion.is_complete());
///     });
/// })
/// .await;
/// # }
/// ```
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// use axum_defer::{Completion, DeferLayer, Delivery, Level, defer};
/// use axum::{Router, body::Body, extract::Request, routing::get};
/// use http_body_util::BodyExt;
/// use tower::ServiceExt;
///
/// let layer = DeferLayer::new();
/// let deferred = layer.handle();
/// let handler = || async {
///     defer(|completion: Completion| async move {
///         assert_eq!(completion.status().unwrap(), 200);
///         assert!(completion.is_success() && completion.is_complete());
///         assert_eq!(completion.delivery(), Delivery::Complete);
///         assert_eq!(completion.level(), Level::HandedOff);
///         assert_eq!(completion.body_bytes(), 5);
///         assert!(completion.is_body_finished() && completion.body_error().is_none());
///         println!("in {:?}", completion.elapsed());
///     });
///     "hello"
/// };
/// let app: Router = Router::new().route("/", get(handler)).layer(layer);
///
/// let response = app.oneshot(Request::new(Body::empty())).await.unwrap();
/// response.into_body().collect().await.unwrap();
/// assert!(deferred.drain(std::time::Duration::MAX).await.failed == 0);
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Completion {
    pub(crate) status: Option<StatusCode>,
    pub(crate) grpc_status: Option<i32>,
    pub(crate) success: bool,
    pub(crate) delivery: Delivery,
    pub(crate) level: Level,
    pub(crate) bytes: u64,
    pub(crate) elapsed: Duration,
    pub(crate) body_finished: bool,
    pub(crate) body_error: Option<Arc<str>>,
}

impl Completion {
    /// Returns the status of the response. `None` if there was no response (the handler was cancelled,
    /// panicked, or failed), and for a unit of work that is not an HTTP request.
    pub fn status(&self) -> Option<StatusCode> {
        self.status
    }

    /// Returns the `grpc-status` of the response, from its headers or its trailers. `None` if it has none,
    /// for example because the client disconnected before the trailers.
    ///
    /// It is reported under every classifier.
    ///
    /// ```
    /// use axum_defer::{Completion, defer};
    ///
    /// # fn handler() {
    /// defer(|completion: Completion| async move {
    ///     println!("grpc-status {:?}", completion.grpc_status());
    /// })
    /// .always();
    /// # }
    /// ```
    pub fn grpc_status(&self) -> Option<i32> {
        self.grpc_status
    }

    /// Returns `true` if the layer's classifier considers the response a success: a status below
    /// 400, or grpc-status 0. For a [`scope`](crate::scope()), the output decides.
    ///
    /// Delivery does not matter: a 200 whose client disconnected before the end of the body is a success
    /// that is not [complete](Self::is_complete).
    pub fn is_success(&self) -> bool {
        self.success
    }

    /// Returns `true` if the whole response went out, up to the [`Level`] that decided it: to the
    /// buffers of the server, or to those of the operating system. Only the client knows whether it
    /// has arrived.
    ///
    /// A [`scope`](crate::scope()) that returned is complete, even if it failed. It is not complete if
    /// it was dropped or panicked.
    ///
    /// A response to HEAD, a 204, and a 304 are complete without a body. To bill a download, check
    /// [`body_bytes`](Self::body_bytes), too.
    pub fn is_complete(&self) -> bool {
        self.delivery == Delivery::Complete
    }

    /// Returns `true` if the body of the response was produced to its end, without an error.
    ///
    /// This says nothing about the client: with [`DeferLayer::finish_body`](crate::DeferLayer::finish_body),
    /// the body is driven to its end after the client has disconnected, and the delivery is
    /// [`Aborted`](Delivery::Aborted). A [complete](Self::is_complete) response is always finished.
    pub fn is_body_finished(&self) -> bool {
        self.body_finished || self.is_complete()
    }

    /// Returns how the delivery of the response ended.
    pub fn delivery(&self) -> Delivery {
        self.delivery
    }

    /// Returns the signal that decided the completion.
    ///
    /// The level depends on the connection, and not on how the response ended: a
    /// [`NoResponse`](Delivery::NoResponse) has [`Level::Flushed`] if the connection reports flushes.
    /// The completion then includes the response of an outer layer, and so does
    /// [`body_bytes`](Self::body_bytes). The level is [`Level::HandedOff`] before the response and
    /// for a [`scope`](crate::scope()).
    pub fn level(&self) -> Level {
        self.level
    }

    /// Returns the number of body bytes, without the framing of the protocol.
    ///
    /// At [`Level::HandedOff`], this counts what the server took from the body. At
    /// [`Level::Flushed`], it counts what the connection accepted, for example after compression.
    pub fn body_bytes(&self) -> u64 {
        self.bytes
    }

    /// Returns the text of the error or the panic that ended the response body. `None` if none did.
    ///
    /// The text is on one line: control characters are escaped, and it is truncated after 4 KiB. A body
    /// that ended before its declared length has a text of this crate.
    pub fn body_error(&self) -> Option<&str> {
        self.body_error.as_deref()
    }

    /// Returns the time from the arrival of the request at the layer to this completion.
    pub fn elapsed(&self) -> Duration {
        self.elapsed
    }
}

/// The end of the delivery of a response.
///
/// ```
/// use axum_defer::{Delivery, defer};
///
/// # fn handler() {
/// defer(async { println!("the client disconnected before the end of the body") })
///     .when(|completion| completion.delivery() == Delivery::Aborted);
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Delivery {
    /// The whole response went out, as far as the [`Level`] reaches.
    Complete,
    /// The body was dropped before its end, or the connection was lost before the last byte.
    Aborted,
    /// The body returned an error, panicked, or ended before its declared length.
    BodyError,
    /// The response has not been sent yet. Callbacks [before the
    /// response](crate::before_response) receive this.
    Pending,
    /// There was no response: the handler was cancelled because its client disconnected, it panicked, or a
    /// service failed.
    NoResponse,
}

/// The signal that decided a [`Completion`].
///
/// ```
/// use axum_defer::{Completion, Level, defer};
///
/// # fn handler() {
/// defer(|completion: Completion| async move {
///     match completion.level() {
///         Level::Flushed => println!("the operating system has the last byte"),
///         _ => println!("some bytes may still be in this process"),
///     }
/// });
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Level {
    /// The server has taken the last frame of the body. Bytes may still be in the process.
    ///
    /// A Tower layer cannot see more than this without help of the server.
    HandedOff,
    /// The transport, usually the operating system, has accepted the last byte and was flushed; or
    /// the connection was lost.
    ///
    /// Megabytes of a response may still be in the buffers of both operating systems.
    ///
    /// This needs a connection that reports flushes: `axum_defer::serve`, or the parts in
    /// [`sent`](crate::sent).
    Flushed,
}

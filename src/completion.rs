//! How a unit of work ended.

use std::time::Duration;

use http::StatusCode;

/// How one unit of work ended: the verdict that decides which callbacks run.
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
///         assert!(completion.is_success() && completion.is_delivered());
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
///         assert!(completion.is_success() && completion.is_delivered());
///         assert_eq!(completion.delivery(), Delivery::Sent);
///         assert_eq!(completion.level(), Level::HandedOver);
///         assert_eq!(completion.bytes_sent(), 5);
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completion {
    pub(crate) status: Option<StatusCode>,
    pub(crate) success: bool,
    pub(crate) delivery: Delivery,
    pub(crate) level: Level,
    pub(crate) bytes: u64,
    pub(crate) elapsed: Duration,
}

impl Completion {
    /// The status of the response, or `None` when there was no response: the handler was
    /// cancelled, panicked or failed, or the unit of work was no HTTP request.
    pub fn status(&self) -> Option<StatusCode> {
        self.status
    }

    /// Whether the response was a success as the layer's classifier sees it: a status below 400,
    /// or grpc-status 0. For [`scope`](crate::scope()) it is what the output says.
    ///
    /// Delivery does not enter into it: a 200 whose client went away half-way is a success that
    /// was not [delivered](Self::is_delivered).
    pub fn is_success(&self) -> bool {
        self.success
    }

    /// Whether the response went out whole, up to the [`Level`] that decided it: to the server's
    /// buffers, or to those of the operating system. That the client has it is known to the client
    /// alone.
    ///
    /// A [`scope`](crate::scope()) that returned has nothing to deliver and is taken for delivered,
    /// also if it failed; it is not if it was dropped or panicked.
    ///
    /// A response to HEAD, a 204 and a 304 are whole without a body: who bills a download asks
    /// for [`bytes_sent`](Self::bytes_sent) too.
    pub fn is_delivered(&self) -> bool {
        self.delivery == Delivery::Sent
    }

    /// What became of the response.
    pub fn delivery(&self) -> Delivery {
        self.delivery
    }

    /// Which signal decided the completion.
    ///
    /// This depends on the connection and not on what became of the response: also of a
    /// [`NoResponse`](Delivery::NoResponse) it is [`Level::Sent`] where the connection reports what
    /// was sent, and of a [`scope`](crate::scope()), and before the response, it is always [`Level::HandedOver`]. Of a
    /// `NoResponse` at `Level::Sent`, whatever a layer outside answered in its place is over too, and
    /// counts in [`bytes_sent`](Self::bytes_sent).
    pub fn level(&self) -> Level {
        self.level
    }

    /// Body bytes, without the protocol's framing.
    ///
    /// At [`Level::HandedOver`] these are the bytes that the server took from the body; at
    /// [`Level::Sent`] the bytes of the response as it went out (after compression, say) that
    /// the connection has accepted.
    pub fn bytes_sent(&self) -> u64 {
        self.bytes
    }

    /// Time from the arrival of the request at the layer to this completion.
    pub fn elapsed(&self) -> Duration {
        self.elapsed
    }
}

/// What became of a response.
///
/// ```
/// use axum_defer::{Delivery, defer};
///
/// # fn handler() {
/// defer(async { println!("the client broke it off") })
///     .when(|completion| completion.delivery() == Delivery::Aborted);
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Delivery {
    /// The response is over and went out whole, as far as the [`Level`] reaches. What becomes of it
    /// on the way to the client is not known.
    Sent,
    /// The body was dropped before its end, or the connection was lost before the last byte.
    Aborted,
    /// The body yielded an error, or ended before the length that it had declared.
    BodyError,
    /// The response is known, and has not gone out: what
    /// [`before_response`](crate::before_response) is told.
    Pending,
    /// There never was a response: the handler was cancelled (its client went away), panicked,
    /// or a service failed.
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
///         Level::Sent => println!("the operating system has it"),
///         _ => println!("some of it may still be in this process"),
///     }
/// });
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Level {
    /// The server has taken the last frame of the body. Bytes may still be in the process.
    ///
    /// All that a Tower layer can see by itself, so it is what every server gives.
    HandedOver,
    /// The transport, as a rule the operating system, has accepted the last byte and was flushed; or
    /// the connection was lost.
    ///
    /// That does not mean that the client has it: megabytes of a response may still lie in the
    /// buffers of both operating systems, which no server can see into.
    ///
    /// Needs a connection that reports it: `axum_defer::serve`, or the parts in
    /// [`sent`](crate::sent).
    Sent,
}

//! Events of callbacks, as a recorder keeps them.

use std::fmt;

use crate::{
    completion::{Completion, Delivery},
    observe::{callback_info::Phase, outcome::LostReason},
};

/// An event of one callback.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// use axum_defer::{DeferLayer, defer, testing::{CallbackEvent, Recorder}};
///
/// let recorder = Recorder::new();
/// DeferLayer::new()
///     .observer(recorder.clone())
///     .scope(async {
///         defer(async { Err("no ink") }).name("receipt");
///     })
///     .await;
///
/// for recorded in recorder.events() {
///     println!("{} {}: {}", recorded.callback, recorded.phase, recorded.event);
/// }
/// let last = recorder.events().pop().unwrap();
/// assert_eq!(last.callback, "receipt");
/// assert_eq!(last.event, CallbackEvent::Failed("error: no ink".to_owned()));
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecordedEvent {
    /// The name of the callback, or else its location.
    pub callback: String,
    /// The location of the call of `defer`, as `file:line`.
    pub location: String,
    /// The phase in which it runs.
    pub phase: Phase,
    /// The event.
    pub event: CallbackEvent,
}

/// The kind of an event. See [`DeferObserver`](crate::DeferObserver).
///
/// ```
/// use axum_defer::testing::CallbackEvent;
///
/// let ended = CallbackEvent::Failed("error: no ink".to_owned());
/// assert!(ended.is_end());
/// assert!(!CallbackEvent::Started.is_end());
/// assert_eq!(ended.to_string(), "failed: error: no ink");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CallbackEvent {
    /// It was registered.
    Registered,
    /// It started.
    Started,
    /// It succeeded.
    Succeeded,
    /// It returned an error, panicked, or timed out, with this text.
    Failed(String),
    /// Its rule did not allow it to run for this completion.
    Skipped(Completion),
    /// It was cancelled or forgotten.
    Cancelled,
    /// A later callback of the same name replaced it.
    Replaced,
    /// A callback of the same name in another scope was queued or running.
    Deduplicated,
    /// It should have run and could not.
    Lost(LostReason),
}

impl CallbackEvent {
    /// Returns `true` if the callback has ended.
    pub fn is_end(&self) -> bool {
        !matches!(self, Self::Registered | Self::Started)
    }
}

impl fmt::Display for CallbackEvent {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Registered => formatter.write_str("registered"),
            Self::Started => formatter.write_str("started"),
            Self::Succeeded => formatter.write_str("succeeded"),
            Self::Failed(failure) => write!(formatter, "failed: {failure}"),
            Self::Skipped(completion) => {
                formatter.write_str("skipped: ")?;
                match (completion.status(), completion.delivery()) {
                    (Some(status), delivery) => write!(
                        formatter,
                        "the response was a {}, delivery {delivery:?}, {} bytes",
                        status.as_u16(),
                        completion.body_bytes()
                    ),
                    (None, Delivery::NoResponse) => formatter.write_str("there was no response"),
                    (None, _) if completion.is_success() => {
                        formatter.write_str("the unit of work succeeded")
                    }
                    (None, _) => formatter.write_str("the unit of work failed"),
                }
            }
            Self::Cancelled => formatter.write_str("cancelled"),
            Self::Replaced => formatter.write_str("replaced"),
            Self::Deduplicated => formatter.write_str("deduplicated"),
            Self::Lost(reason) => write!(formatter, "lost: {reason}"),
        }
    }
}

impl fmt::Display for RecordedEvent {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.callback, self.event)?;
        if self.callback != self.location {
            write!(formatter, " ({})", self.location)?;
        }
        Ok(())
    }
}

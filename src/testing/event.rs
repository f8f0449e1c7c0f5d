//! What a recorder writes down.

use std::fmt;

use crate::{
    completion::{Completion, Delivery},
    observe::{outcome::LostReason, phase::Phase},
};

/// Something that happened to a callback.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// use axum_defer::{DeferLayer, defer, testing::{Event, Recorder}};
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
/// assert_eq!(last.event, Event::Failed("error: no ink".to_owned()));
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Recorded {
    /// The name of the callback; without one, where `defer` was called, as `file:line`.
    pub callback: String,
    /// Whether it runs before the response or after it.
    pub phase: Phase,
    /// What happened to it.
    pub event: Event,
}

/// What can happen to a callback; see [`DeferObserver`](crate::DeferObserver).
///
/// ```
/// use axum_defer::testing::Event;
///
/// let ended = Event::Failed("error: no ink".to_owned());
/// assert!(ended.is_end());
/// assert!(!Event::Started.is_end());
/// assert_eq!(ended.to_string(), "failed: error: no ink");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// It was registered.
    Registered,
    /// It started.
    Started,
    /// It ran to a good end.
    Ran,
    /// It returned an error, panicked or timed out; this is what it said.
    Failed(String),
    /// The rule kept it from running for this completion.
    Skipped(Completion),
    /// It was cancelled or forgotten.
    Cancelled,
    /// A later one took its name.
    Replaced,
    /// One of its name was pending or running in another scope.
    Duplicate,
    /// It should have run and could not.
    Lost(LostReason),
}

impl Event {
    /// Whether nothing more can happen to the callback.
    pub fn is_end(&self) -> bool {
        !matches!(self, Self::Registered | Self::Started)
    }
}

impl fmt::Display for Event {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Registered => formatter.write_str("registered"),
            Self::Started => formatter.write_str("started"),
            Self::Ran => formatter.write_str("ran"),
            Self::Failed(failure) => write!(formatter, "failed: {failure}"),
            Self::Skipped(completion) => {
                formatter.write_str("skipped: ")?;
                match (completion.status(), completion.delivery()) {
                    (Some(status), delivery) => write!(
                        formatter,
                        "the response was a {}, delivery {delivery:?}, {} bytes",
                        status.as_u16(),
                        completion.bytes_sent()
                    ),
                    (None, Delivery::NoResponse) => formatter.write_str("there was no response"),
                    (None, _) if completion.is_success() => {
                        formatter.write_str("the unit of work succeeded")
                    }
                    (None, _) => formatter.write_str("the unit of work failed"),
                }
            }
            Self::Cancelled => formatter.write_str("cancelled"),
            Self::Replaced => formatter.write_str("replaced by a later one of its name"),
            Self::Duplicate => {
                formatter.write_str("not run: one of its name is pending or running")
            }
            Self::Lost(reason) => write!(formatter, "lost: {reason}"),
        }
    }
}

impl fmt::Display for Recorded {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.callback, self.event)
    }
}

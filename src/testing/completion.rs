//! Completions for testing rules.

use std::{ops::Deref, time::Duration};

use http::StatusCode;

use crate::completion::{Completion, Delivery, Level};

/// A [`Completion`] to test a rule with: at first that of a 200 that was delivered, without a body.
///
/// ```
/// use axum_defer::{Completion, Delivery, testing::completion};
///
/// /// The rule of the app: `.when(is_billed)`.
/// fn is_billed(download: &Completion) -> bool {
///     download.is_success() && download.is_delivered() && download.bytes_sent() > 0
/// }
///
/// assert!(is_billed(&completion().bytes(9)));
/// assert!(!is_billed(&completion()));
/// assert!(!is_billed(&completion().status(404).bytes(9)));
/// assert!(!is_billed(&completion().bytes(9).delivery(Delivery::Aborted)));
/// assert!(!is_billed(&completion().no_response()));
/// ```
pub fn completion() -> CompletionBuilder {
    CompletionBuilder(Completion {
        status: Some(StatusCode::OK),
        success: true,
        delivery: Delivery::Sent,
        level: Level::HandedOver,
        bytes: 0,
        elapsed: Duration::ZERO,
    })
}

/// A [`Completion`] in the making; it can be used as one at any time. Made by [`completion`].
///
/// ```
/// use std::time::Duration;
/// use axum_defer::{Completion, Delivery, Level, testing::completion};
///
/// let slow: Completion = completion()
///     .status(200)
///     .success(false)  // as a classifier of ours says
///     .delivery(Delivery::Aborted)
///     .level(Level::Sent)
///     .bytes(1_000)
///     .elapsed(Duration::from_secs(20))
///     .build();
/// assert!(!slow.is_success() && !slow.is_delivered());
///
/// let gone = completion().no_response().build();
/// assert_eq!((gone.status(), gone.delivery()), (None, Delivery::NoResponse));
/// ```
#[derive(Clone, Copy, Debug)]
pub struct CompletionBuilder(Completion);

impl CompletionBuilder {
    /// A response with this status, which is a success if it is below 400.
    ///
    /// # Panics
    ///
    /// If it is no status: below 100 or above 999.
    #[must_use]
    pub fn status(mut self, status: u16) -> Self {
        let status = StatusCode::from_u16(status).expect("a status is between 100 and 999");
        self.0.status = Some(status);
        self.0.success = status.as_u16() < 400;
        self
    }

    /// What the layer's classifier says, whatever the status is.
    #[must_use]
    pub fn success(mut self, success: bool) -> Self {
        self.0.success = success;
        self
    }

    /// What became of the response.
    #[must_use]
    pub fn delivery(mut self, delivery: Delivery) -> Self {
        self.0.delivery = delivery;
        self
    }

    /// The signal that decided it.
    #[must_use]
    pub fn level(mut self, level: Level) -> Self {
        self.0.level = level;
        self
    }

    /// Bytes of the body.
    #[must_use]
    pub fn bytes(mut self, bytes: u64) -> Self {
        self.0.bytes = bytes;
        self
    }

    /// Time from the arrival of the request to the completion.
    #[must_use]
    pub fn elapsed(mut self, elapsed: Duration) -> Self {
        self.0.elapsed = elapsed;
        self
    }

    /// There was no response: the handler was cancelled, panicked or failed.
    #[must_use]
    pub fn no_response(mut self) -> Self {
        self.0.status = None;
        self.0.success = false;
        self.0.delivery = Delivery::NoResponse;
        self
    }

    /// The completion as it is now.
    pub fn build(self) -> Completion {
        self.0
    }
}

impl Deref for CompletionBuilder {
    type Target = Completion;

    fn deref(&self) -> &Completion {
        &self.0
    }
}

impl From<CompletionBuilder> for Completion {
    fn from(builder: CompletionBuilder) -> Self {
        builder.0
    }
}

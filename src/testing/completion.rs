//! Completions for testing rules.

use std::{ops::Deref, time::Duration};

use http::StatusCode;

use crate::{
    completion::{Completion, Delivery, Level},
    observe::text::OneLine,
};

/// Builds a [`Completion`] for testing a rule. It starts as a complete 200 without a body.
///
/// ```
/// use axum_defer::{Completion, Delivery, testing::completion};
///
/// /// The rule of the app: `.when(is_billed)`.
/// fn is_billed(download: &Completion) -> bool {
///     download.is_success() && download.is_complete() && download.body_bytes() > 0
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
        grpc_status: None,
        success: true,
        delivery: Delivery::Complete,
        level: Level::HandedOff,
        bytes: 0,
        elapsed: Duration::ZERO,
        body_finished: true,
        body_error: None,
    })
}

/// A builder of a [`Completion`], which dereferences to the completion. Returned by [`completion`].
///
/// ```
/// use std::time::Duration;
/// use axum_defer::{Completion, Delivery, Level, testing::completion};
///
/// let slow: Completion = completion()
///     .status(200)
///     .success(false)  // according to the app's classifier
///     .delivery(Delivery::Aborted)
///     .level(Level::Flushed)
///     .bytes(1_000)
///     .elapsed(Duration::from_secs(20))
///     .build();
/// assert!(!slow.is_success() && !slow.is_complete());
///
/// let broken = completion().grpc_status(13).body_error("no disk").build();
/// assert_eq!((broken.grpc_status(), broken.body_error()), (Some(13), Some("no disk")));
/// assert_eq!(broken.delivery(), Delivery::BodyError);
///
/// let finished = completion().finished_without_client().build();
/// assert!(finished.is_body_finished() && !finished.is_complete());
///
/// let gone = completion().no_response().build();
/// assert_eq!((gone.status(), gone.delivery()), (None, Delivery::NoResponse));
/// ```
#[derive(Clone, Debug)]
pub struct CompletionBuilder(Completion);

impl CompletionBuilder {
    /// Sets the status. The response is a success if it is below 400.
    ///
    /// # Panics
    ///
    /// Panics if the status is below 100 or above 999.
    #[must_use]
    pub fn status(mut self, status: u16) -> Self {
        let status = StatusCode::from_u16(status).expect("the status is between 100 and 999");
        self.0.status = Some(status);
        self.0.success = status.as_u16() < 400;
        self
    }

    /// Sets whether the response is a success, independently of the status.
    #[must_use]
    pub fn success(mut self, success: bool) -> Self {
        self.0.success = success;
        self
    }

    /// Sets the delivery. The body is finished if it is [`Complete`](Delivery::Complete).
    #[must_use]
    pub fn delivery(mut self, delivery: Delivery) -> Self {
        self.0.delivery = delivery;
        self.0.body_finished = delivery == Delivery::Complete;
        self
    }

    /// Sets the level.
    #[must_use]
    pub fn level(mut self, level: Level) -> Self {
        self.0.level = level;
        self
    }

    /// Sets the number of body bytes.
    #[must_use]
    pub fn bytes(mut self, bytes: u64) -> Self {
        self.0.bytes = bytes;
        self
    }

    /// Sets the grpc-status. The response is a success if it is 0.
    #[must_use]
    pub fn grpc_status(mut self, code: i32) -> Self {
        self.0.grpc_status = Some(code);
        self.0.success = code == 0;
        self
    }

    /// Makes this the completion of a response whose client disconnected, and whose body was produced to its
    /// end by [`finish_body`](crate::DeferLayer::finish_body).
    #[must_use]
    pub fn finished_without_client(mut self) -> Self {
        self.0.delivery = Delivery::Aborted;
        self.0.body_finished = true;
        self
    }

    /// Makes an error with this text the end of the body. The delivery becomes
    /// [`BodyError`](Delivery::BodyError).
    #[must_use]
    pub fn body_error(mut self, text: &str) -> Self {
        self.0.delivery = Delivery::BodyError;
        self.0.body_finished = false;
        self.0.body_error = Some(OneLine(text).to_string().into());
        self
    }

    /// Sets the time from the arrival of the request to the completion.
    #[must_use]
    pub fn elapsed(mut self, elapsed: Duration) -> Self {
        self.0.elapsed = elapsed;
        self
    }

    /// Makes this the completion of a request without a response.
    #[must_use]
    pub fn no_response(mut self) -> Self {
        self.0.status = None;
        self.0.success = false;
        self.0.grpc_status = None;
        self.0.delivery = Delivery::NoResponse;
        self.0.body_finished = false;
        self.0.body_error = None;
        self
    }

    /// Returns the completion.
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

//! Runs the first phase of a scope: what the response waits for.

use std::{fmt, panic::Location, sync::Arc};

use tokio::task::coop;

use super::turn::Turn;
use crate::{completion::Completion, observe::outcome::LostReason, scope::Scope};

/// What a callback registered with [`before_response`](crate::before_response) failed with; the
/// response became a failure because of it.
///
/// It is in the extensions of the response that takes the place of the handler's, so that a layer
/// outside of the [`DeferLayer`](crate::DeferLayer) can make an error page of it:
///
/// ```
/// use axum::{Router, response::{IntoResponse, Response}, routing::get};
/// use axum_defer::{BeforeResponseFailed, DeferLayer, before_response};
/// use tower::util::MapResponseLayer;
///
/// async fn place_order() -> &'static str {
///     before_response(async { Err("the database is gone") }).name("commit");
///     "thank you"
/// }
///
/// fn error_page(response: Response) -> Response {
///     match response.extensions().get::<BeforeResponseFailed>() {
///         Some(failed) => {
///             eprintln!("{failed}");
///             (response.status(), "please try again").into_response()
///         }
///         None => response,
///     }
/// }
///
/// let app: Router = Router::new()
///     .route("/", get(place_order))
///     .layer(DeferLayer::new())
///     .layer(MapResponseLayer::new(error_page));
/// ```
///
/// ```
/// use axum::response::Response;
/// use axum_defer::BeforeResponseFailed;
///
/// /// For the log, in a layer outside.
/// fn reason(response: &Response) -> Option<String> {
///     let failed = response.extensions().get::<BeforeResponseFailed>()?;
///     let name = failed.name().unwrap_or("unnamed");
///     Some(format!("{name} at {}: {}", failed.location(), failed.message()))
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BeforeResponseFailed {
    name: Option<String>,
    location: &'static Location<'static>,
    message: String,
}

impl BeforeResponseFailed {
    /// The name of the callback.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Where `before_response` was called.
    pub fn location(&self) -> &'static Location<'static> {
        self.location
    }

    /// What it failed with, as an [`Outcome`](crate::Outcome) says it: `error: no luck`,
    /// `panicked: no luck`, `timed out after 5s`.
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for BeforeResponseFailed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("before the response, ")?;
        if let Some(name) = &self.name {
            write!(formatter, "{name} ")?;
        }
        write!(formatter, "({}) {}", self.location, self.message)
    }
}

impl std::error::Error for BeforeResponseFailed {}

/// Runs what is registered, in order and one at a time, until none is left or one fails.
///
/// The head is released then: what comes later is refused.
pub(super) async fn run(
    scope: &Arc<Scope>,
    completion: &Completion,
) -> Result<(), BeforeResponseFailed> {
    scope.before_begins(*completion);
    while let Some(entry) = scope.next_before() {
        let mut turn = Turn::of(scope.clone(), Some(entry));
        let (name, location) = turn.who();
        turn.run(completion).await;
        if let Some(message) = turn.failure() {
            drop(turn);
            let failed = Completion {
                success: false,
                ..*completion
            };
            scope.skip_before(&failed);
            return Err(BeforeResponseFailed {
                name,
                location,
                message,
            });
        }
        drop(turn);
        // As between the callbacks of the second phase.
        coop::consume_budget().await;
    }
    Ok(())
}

/// The first phase of a scope that has not come to its end; what it has not run when it is dropped
/// is lost.
pub(super) struct Unfinished(Option<Arc<Scope>>);

impl Unfinished {
    /// With `None` it is not lost, and somebody else goes on with it.
    pub(super) fn new(scope: Option<Arc<Scope>>) -> Self {
        Self(scope)
    }

    pub(super) fn finish(&mut self) {
        self.0 = None;
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(scope) = &self.0 {
            scope.lose_before(LostReason::NoRuntime);
        }
    }
}

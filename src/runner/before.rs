//! The error of callbacks before the response.

use std::{fmt, panic::Location};

use crate::observe::text::OneLine;

/// The failure of a callback that was registered with
/// [`before_response`](crate::before_response), and the reason why the response failed.
///
/// It is in the extensions of the response that replaces the handler's, so that a layer outside
/// the [`DeferLayer`](crate::DeferLayer) can render an error page:
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
/// /// Describes the failure, for the log of an outer layer.
/// fn reason(response: &Response) -> Option<String> {
///     let failed = response.extensions().get::<BeforeResponseFailed>()?;
///     let name = failed.name().unwrap_or("unnamed");
///     Some(format!("{name} at {}: {}", failed.location(), failed.message()))
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BeforeResponseFailed {
    pub(super) name: Option<String>,
    pub(super) location: &'static Location<'static>,
    pub(super) message: String,
}

impl BeforeResponseFailed {
    /// Returns the name of the callback.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Returns the location of the call of `before_response`.
    pub fn location(&self) -> &'static Location<'static> {
        self.location
    }

    /// Returns the failure as an [`Outcome`](crate::Outcome) displays it: `error: no luck`,
    /// `panicked: no luck`, `timed out after 5s`.
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for BeforeResponseFailed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("before the response, ")?;
        if let Some(name) = &self.name {
            write!(formatter, "{} ", OneLine(name))?;
        }
        write!(formatter, "({}) {}", self.location, self.message)
    }
}

impl std::error::Error for BeforeResponseFailed {}

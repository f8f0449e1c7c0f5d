//! Extractors for axum handlers.

use std::{convert::Infallible, fmt};

use axum_core::{
    extract::{FromRequestParts, OptionalFromRequestParts},
    response::{IntoResponse, Response},
};
use http::{StatusCode, request::Parts};

use super::collection::DeferredCallbackCollection;

impl<S: Send + Sync> FromRequestParts<S> for DeferredCallbackCollection {
    type Rejection = MissingDeferLayer;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        parts
            .extensions
            .get::<Self>()
            .cloned()
            .ok_or(MissingDeferLayer)
    }
}

impl<S: Send + Sync> OptionalFromRequestParts<S> for DeferredCallbackCollection {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Option<Self>, Infallible> {
        Ok(parts.extensions.get::<Self>().cloned())
    }
}

/// The rejection of [`DeferredCallbackCollection`] if the request did not pass through a
/// [`DeferLayer`](crate::DeferLayer). Responds with a 500 that says where to add the layer.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// use axum::{Router, body::Body, extract::Request, routing::get};
/// use axum_defer::DeferredCallbackCollection;
/// use tower::ServiceExt;
///
/// let app: Router = Router::new().route("/", get(|_: DeferredCallbackCollection| async {}));
/// // Without a layer:
/// let response = app.oneshot(Request::new(Body::empty())).await.unwrap();
/// assert_eq!(response.status(), 500);
/// assert!(axum_defer::MissingDeferLayer.to_string().contains("DeferLayer::new()"));
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MissingDeferLayer;

impl fmt::Display for MissingDeferLayer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(
            "`DeferredCallbackCollection` was extracted, but the request did not pass through a \
             `DeferLayer`: add `.layer(axum_defer::DeferLayer::new())` to the router, after the \
             routes that defer",
        )
    }
}

impl std::error::Error for MissingDeferLayer {}

impl IntoResponse for MissingDeferLayer {
    fn into_response(self) -> Response {
        (StatusCode::INTERNAL_SERVER_ERROR, self.to_string()).into_response()
    }
}

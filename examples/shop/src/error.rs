//! Errors of handlers, and their responses.

use axum::{
    http::{HeaderValue, StatusCode, header::WWW_AUTHENTICATE},
    response::{IntoResponse, Response},
};
use axum_defer::BeforeResponseFailed;

pub enum AppError {
    Invalid(&'static str),
    /// Does not reveal whether the address or the password is wrong.
    WrongCredentials,
    NoSession,
    EmailTaken,
    OrderNotFound,
    /// Logged, and not shown to the client.
    Internal(Box<dyn std::error::Error + Send + Sync>),
}

impl<E: std::error::Error + Send + Sync + 'static> From<E> for AppError {
    fn from(error: E) -> Self {
        Self::Internal(error.into())
    }
}

impl IntoResponse for AppError {
    fn into_response(self) -> Response {
        match self {
            Self::Invalid(reason) => (StatusCode::UNPROCESSABLE_ENTITY, reason).into_response(),
            Self::WrongCredentials => unauthorized("wrong address or password"),
            Self::NoSession => unauthorized("log in first"),
            Self::EmailTaken => (StatusCode::CONFLICT, "address already in use").into_response(),
            Self::OrderNotFound => StatusCode::NOT_FOUND.into_response(),
            Self::Internal(error) => {
                tracing::error!("request failed: {error}");
                unavailable()
            }
        }
    }
}

fn unauthorized(reason: &'static str) -> Response {
    let challenge = [(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))];
    (StatusCode::UNAUTHORIZED, challenge, reason).into_response()
}

fn unavailable() -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, "please try again later").into_response()
}

/// Replaces the empty response of a failed `before_response` callback with the app's error page.
pub async fn error_page(response: Response) -> Response {
    if response
        .extensions()
        .get::<BeforeResponseFailed>()
        .is_some()
    {
        unavailable()
    } else {
        response
    }
}

//! What a handler returns when it does not do what it is asked.

use axum::{
    http::StatusCode,
    response::{IntoResponse, Response},
};

pub enum Refused {
    /// With what is wrong.
    Invalid(&'static str),
    /// Deliberately without what is wrong: the address or the password.
    LogIn,
    Session,
    EmailTaken,
    NoSuchOrder,
    /// The details are in the log, and not for the client.
    Failed(Box<dyn std::error::Error + Send + Sync>),
}

impl<E: std::error::Error + Send + Sync + 'static> From<E> for Refused {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        match self {
            Self::Invalid(why) => (StatusCode::UNPROCESSABLE_ENTITY, why).into_response(),
            Self::LogIn => (StatusCode::UNAUTHORIZED, "wrong address or password").into_response(),
            Self::Session => (StatusCode::UNAUTHORIZED, "log in first").into_response(),
            Self::EmailTaken => (StatusCode::CONFLICT, "this address is taken").into_response(),
            Self::NoSuchOrder => StatusCode::NOT_FOUND.into_response(),
            Self::Failed(error) => {
                tracing::error!("a request failed: {error}");
                StatusCode::SERVICE_UNAVAILABLE.into_response()
            }
        }
    }
}

//! `GET /orders/{id}`: returns a document of the user. The audit log records whether the response
//! was complete.

use axum::{
    extract::{Path, Request, State},
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use tower_http::services::ServeFile;

use crate::{
    audit::{Entry, audit},
    error::AppError,
    session::User,
    state::App,
};

pub async fn download(
    State(app): State<App>,
    user: User,
    Path(order): Path<i64>,
    request: Request,
) -> Result<Response, AppError> {
    audit(
        &app.database,
        Entry {
            action: "download",
            email: user.email,
            order: Some(order),
        },
    );
    let document: Option<String> =
        sqlx::query_scalar("SELECT document FROM orders WHERE id = ? AND user = ?")
            .bind(order)
            .bind(user.id)
            .fetch_optional(&app.database.reader)
            .await?;
    // Another user's order looks like a missing one.
    let path = app.files.path(&document.ok_or(AppError::OrderNotFound)?);
    let response = ServeFile::new(path).try_call(request).await?;
    let mut response = response.into_response();
    // Browsers must save uploaded files and not show them as pages of this site.
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_DISPOSITION,
        HeaderValue::from_static("attachment"),
    );
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    Ok(response)
}

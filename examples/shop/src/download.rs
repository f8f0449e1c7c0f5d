//! `GET /orders/{id}`: the document again, if it is one's own. The audit log tells whether it
//! has left the server whole.

use axum::{
    extract::{Path, Request, State},
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use tower_http::services::ServeFile;

use crate::{
    audit::{Entry, audit},
    refused::Refused,
    session::User,
    state::App,
};

pub async fn download(
    State(app): State<App>,
    user: User,
    Path(order): Path<i64>,
    request: Request,
) -> Result<Response, Refused> {
    audit(
        &app.database,
        Entry {
            action: "download",
            who: user.email,
            order: Some(order),
        },
    );
    let document: Option<String> =
        sqlx::query_scalar("SELECT document FROM orders WHERE id = ? AND user = ?")
            .bind(order)
            .bind(user.id)
            .fetch_optional(&app.database.reader)
            .await?;
    // That of somebody else looks like one that was never placed.
    let path = app.files.path(&document.ok_or(Refused::NoSuchOrder)?);
    let response = ServeFile::new(path).try_call(request).await?;
    let mut response = response.into_response();
    // A browser is to save what others have uploaded, and not to show it as a page of ours.
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

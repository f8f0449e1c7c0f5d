//! `POST /orders`: an upload is an order. The order is committed before the response. Everything else
//! happens after it, and only if the order was committed.

use axum::{Json, body::Bytes, extract::State, http::StatusCode};
use axum_defer::defer;
use serde::Serialize;

use crate::{
    audit::{Entry, audit},
    checksum::defer_checksum,
    database::commit_before_response,
    error::AppError,
    session::User,
    state::App,
};

#[derive(Serialize)]
pub struct Created {
    order: i64,
}

pub async fn upload(
    State(app): State<App>,
    user: User,
    document: Bytes,
) -> Result<(StatusCode, Json<Created>), AppError> {
    let entry = |order| Entry {
        action: "order",
        email: user.email.clone(),
        order,
    };
    audit(&app.database, entry(None));
    if document.is_empty() {
        return Err(AppError::Invalid("the document is empty"));
    }
    let file = app.files.store(&document).await?;

    let mut transaction = app.database.begin().await?;
    let order: i64 = sqlx::query_scalar(
        "INSERT INTO orders (user, document, bytes) VALUES (?, ?, ?) RETURNING id",
    )
    .bind(user.id)
    .bind(&file)
    .bind(document.len() as i64)
    .fetch_one(&mut *transaction)
    .await?;
    commit_before_response(transaction);

    audit(&app.database, entry(Some(order)));
    let receipt = app.mail.send(user.email.parse()?, format!("Order {order}"));
    defer(receipt).name("receipt");
    defer_checksum(&app, order, &file);
    app.board.defer_refresh(app.database);
    Ok((StatusCode::CREATED, Json(Created { order })))
}

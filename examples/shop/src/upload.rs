//! `POST /orders`: an upload is an order. What the client is told of has happened; what it need not
//! wait for happens afterwards, and only if the order is there.

use axum::{Json, body::Bytes, extract::State, http::StatusCode};
use axum_defer::defer;
use serde::Serialize;

use crate::{
    audit::{Entry, audit},
    checksum,
    database::commit_before_response,
    refused::Refused,
    session::User,
    state::App,
};

#[derive(Serialize)]
pub struct Placed {
    order: i64,
}

pub async fn upload(
    State(app): State<App>,
    user: User,
    document: Bytes,
) -> Result<(StatusCode, Json<Placed>), Refused> {
    let entry = |order| Entry {
        action: "order",
        who: user.email.clone(),
        order,
    };
    audit(&app.database, entry(None));
    if document.is_empty() {
        return Err(Refused::Invalid("there is nothing to print"));
    }
    let file = app.files.keep(&document).await?;

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
    checksum::after_the_response(&app, order, &file);
    defer(app.board.refresh(app.database)).name("board");
    Ok((StatusCode::CREATED, Json(Placed { order })))
}

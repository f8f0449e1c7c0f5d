//! `POST /orders`: the order and the job that it causes, in one transaction.

use axum::{
    Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use axum_defer::defer;
use serde::{Deserialize, Serialize};
use sqlx::SqlitePool;

use crate::relay::{Job, Relay};

#[derive(Clone)]
pub struct App {
    pub database: SqlitePool,
    pub relay: Relay,
}

#[derive(Deserialize)]
pub struct Order {
    item: String,
    quantity: i64,
    email: String,
}

#[derive(Serialize)]
pub struct Placed {
    order: i64,
}

pub async fn place(
    State(app): State<App>,
    Json(order): Json<Order>,
) -> Result<(StatusCode, Json<Placed>), Refused> {
    if order.quantity < 1 {
        return Err(Refused::Quantity);
    }
    // A transaction that reads first and writes then can fail as "busy" without having waited.
    // This one waits for its turn to write before it begins.
    let mut transaction = app.database.begin_with("BEGIN IMMEDIATE").await?;
    let id = sqlx::query_scalar(
        "INSERT INTO orders (item, quantity, email)
         SELECT item, ?, ? FROM stock WHERE item = ? RETURNING id",
    )
    .bind(order.quantity)
    .bind(&order.email)
    .bind(&order.item)
    .fetch_optional(&mut *transaction)
    .await?
    .ok_or(Refused::Stock)?;
    let to = order.email;
    Job::Receipt { order: id, to }.add(&mut transaction).await?;
    let taken = sqlx::query(
        "UPDATE stock SET remaining = remaining - ?1 WHERE item = ?2 AND remaining >= ?1",
    )
    .bind(order.quantity)
    .bind(&order.item)
    .execute(&mut *transaction)
    .await?;
    if taken.rows_affected() == 0 {
        // The transaction is dropped: neither the order nor its job was ever there.
        return Err(Refused::Stock);
    }
    transaction.commit().await?;

    // It may be lost: what it would have found, the sweep finds.
    defer(app.relay.drain()).name("relay");
    Ok((StatusCode::CREATED, Json(Placed { order: id })))
}

pub enum Refused {
    Quantity,
    Stock,
    Database(sqlx::Error),
}

impl From<sqlx::Error> for Refused {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error)
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        match self {
            Self::Quantity => (StatusCode::UNPROCESSABLE_ENTITY, "at least one\n").into_response(),
            Self::Stock => (StatusCode::CONFLICT, "we don't have that many\n").into_response(),
            Self::Database(error) => {
                tracing::error!("an order failed: {error}");
                StatusCode::SERVICE_UNAVAILABLE.into_response()
            }
        }
    }
}

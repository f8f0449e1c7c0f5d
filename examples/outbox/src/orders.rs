//! `POST /orders`: stores an order and its job in one transaction.

use axum::{
    Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use sqlx::SqlitePool;

use crate::{
    database,
    relay::{Job, Relay},
};

#[derive(Clone)]
pub struct App {
    pub database: SqlitePool,
    pub relay: Relay,
}

#[derive(Deserialize)]
pub struct NewOrder {
    item: String,
    quantity: i64,
    email: String,
}

#[derive(Serialize)]
pub struct Created {
    order: i64,
}

pub async fn create(
    State(app): State<App>,
    Json(order): Json<NewOrder>,
) -> Result<(StatusCode, Json<Created>), OrderError> {
    if order.quantity < 1 {
        return Err(OrderError::InvalidQuantity);
    }
    let mut transaction = database::begin(&app.database).await?;
    let id = sqlx::query_scalar(
        "INSERT INTO orders (item, quantity, email)
         SELECT item, ?, ? FROM stock WHERE item = ? RETURNING id",
    )
    .bind(order.quantity)
    .bind(&order.email)
    .bind(&order.item)
    .fetch_optional(&mut *transaction)
    .await?
    .ok_or(OrderError::OutOfStock)?;
    let to = order.email;
    Job::Receipt { order: id, to }.add(&mut transaction).await?;
    let updated = sqlx::query(
        "UPDATE stock SET remaining = remaining - ?1 WHERE item = ?2 AND remaining >= ?1",
    )
    .bind(order.quantity)
    .bind(&order.item)
    .execute(&mut *transaction)
    .await?;
    if updated.rows_affected() == 0 {
        // Dropping the transaction rolls back both the order and its job.
        return Err(OrderError::OutOfStock);
    }
    transaction.commit().await?;

    // If this callback is lost, the sweep runs the job.
    app.relay.defer_drain();
    Ok((StatusCode::CREATED, Json(Created { order: id })))
}

pub enum OrderError {
    InvalidQuantity,
    OutOfStock,
    Database(sqlx::Error),
}

impl From<sqlx::Error> for OrderError {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error)
    }
}

impl IntoResponse for OrderError {
    fn into_response(self) -> Response {
        match self {
            Self::InvalidQuantity => (
                StatusCode::UNPROCESSABLE_ENTITY,
                "quantity must be positive\n",
            )
                .into_response(),
            Self::OutOfStock => (StatusCode::CONFLICT, "out of stock\n").into_response(),
            Self::Database(error) => {
                tracing::error!("cannot store an order: {error}");
                StatusCode::SERVICE_UNAVAILABLE.into_response()
            }
        }
    }
}

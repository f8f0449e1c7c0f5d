//! `POST /orders`: stores an order and its job in one transaction.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use axum::{
    Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use axum_defer::defer;
use graphile_worker::{JobSpec, WorkerUtils};
use serde::{Deserialize, Serialize};
use sqlx::PgPool;

use crate::receipt::SendReceipt;

#[derive(Clone)]
pub struct App {
    pub database: PgPool,
    pub queue: WorkerUtils,
    pub total: Total,
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
    // Postgres cannot store this character, neither as text nor in JSON.
    if order.item.contains('\0') || order.email.contains('\0') {
        return Err(OrderError::NulCharacter);
    }
    let mut transaction = app.database.begin().await?;
    let id = sqlx::query_scalar(
        "INSERT INTO orders (item, quantity, email)
         SELECT item, $1, $2 FROM stock WHERE item = $3 RETURNING id",
    )
    .bind(order.quantity)
    .bind(&order.email)
    .bind(&order.item)
    .fetch_optional(&mut *transaction)
    .await?
    .ok_or(OrderError::OutOfStock)?;
    let receipt = SendReceipt {
        order: id,
        to: order.email,
    };
    app.queue
        .with_executor(&mut transaction)
        .add_job(receipt, JobSpec::builder().max_attempts(5).build())
        .await?;
    let updated = sqlx::query(
        "UPDATE stock SET remaining = remaining - $1 WHERE item = $2 AND remaining >= $1",
    )
    .bind(order.quantity)
    .bind(&order.item)
    .execute(&mut *transaction)
    .await?;
    if updated.rows_affected() == 0 {
        // Dropping the transaction rolls back both the order and its job.
        return Err(OrderError::OutOfStock);
    }
    // Postgres notifies the workers of all processes after the commit.
    transaction.commit().await?;

    // A callback may be lost, so it only updates a cache.
    defer(app.total.refresh(app.database))
        .name("total")
        .coalesce();
    Ok((StatusCode::CREATED, Json(Created { order: id })))
}

/// The number of orders, cached because counting them is slow.
#[derive(Clone, Default)]
pub struct Total(Arc<AtomicI64>);

impl Total {
    pub async fn refresh(self, database: PgPool) -> Result<(), sqlx::Error> {
        let total = sqlx::query_scalar("SELECT count(*) FROM orders")
            .fetch_one(&database)
            .await?;
        self.0.store(total, Ordering::Relaxed);
        Ok(())
    }
}

pub async fn total(State(app): State<App>) -> String {
    format!("{} orders\n", app.total.0.load(Ordering::Relaxed))
}

pub enum OrderError {
    InvalidQuantity,
    NulCharacter,
    OutOfStock,
    Database(Box<dyn std::error::Error>),
}

impl<E: std::error::Error + 'static> From<E> for OrderError {
    fn from(error: E) -> Self {
        Self::Database(error.into())
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
            Self::NulCharacter => (StatusCode::BAD_REQUEST, "NUL is not allowed\n").into_response(),
            Self::OutOfStock => (StatusCode::CONFLICT, "out of stock\n").into_response(),
            Self::Database(error) => {
                tracing::error!("cannot store an order: {error}");
                StatusCode::SERVICE_UNAVAILABLE.into_response()
            }
        }
    }
}

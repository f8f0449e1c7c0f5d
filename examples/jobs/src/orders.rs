//! `POST /orders`: the order and the job that it causes, in one transaction.

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
    .ok_or(Refused::Stock)?;
    let receipt = SendReceipt {
        order: id,
        to: order.email,
    };
    app.queue
        .with_executor(&mut transaction)
        .add_job(receipt, JobSpec::builder().max_attempts(5).build())
        .await?;
    let taken = sqlx::query(
        "UPDATE stock SET remaining = remaining - $1 WHERE item = $2 AND remaining >= $1",
    )
    .bind(order.quantity)
    .bind(&order.item)
    .execute(&mut *transaction)
    .await?;
    if taken.rows_affected() == 0 {
        // The transaction is dropped: neither the order nor its job was ever there.
        return Err(Refused::Stock);
    }
    // This also wakes a worker, here or elsewhere: Postgres notifies them when it has committed.
    transaction.commit().await?;

    // What may be lost has its place here.
    defer(app.total.refresh(app.database)).name("total");
    Ok((StatusCode::CREATED, Json(Placed { order: id })))
}

/// How many orders there were, of all processes: too slow to count for each who asks.
#[derive(Clone, Default)]
pub struct Total(Arc<AtomicI64>);

impl Total {
    pub async fn refresh(self, database: PgPool) -> Result<(), sqlx::Error> {
        let total = sqlx::query_scalar("SELECT count(*) FROM orders")
            .fetch_one(&database)
            .await?;
        self.0.fetch_max(total, Ordering::Relaxed);
        Ok(())
    }
}

pub async fn total(State(app): State<App>) -> String {
    format!("{} orders\n", app.total.0.load(Ordering::Relaxed))
}

pub enum Refused {
    Quantity,
    Stock,
    Failed(Box<dyn std::error::Error>),
}

impl<E: std::error::Error + 'static> From<E> for Refused {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        match self {
            Self::Quantity => (StatusCode::UNPROCESSABLE_ENTITY, "at least one\n").into_response(),
            Self::Stock => (StatusCode::CONFLICT, "we don't have that many\n").into_response(),
            Self::Failed(error) => {
                tracing::error!("an order failed: {error}");
                StatusCode::SERVICE_UNAVAILABLE.into_response()
            }
        }
    }
}

//! `GET /orders`: lists the user's orders. It defers nothing.

use axum::{Json, extract::State};
use serde::Serialize;

use crate::{error::AppError, session::User, state::App};

#[derive(Serialize)]
pub struct Order {
    id: i64,
    bytes: i64,
    /// `None` until the checksum has been computed.
    checksum: Option<String>,
}

pub async fn list(State(app): State<App>, user: User) -> Result<Json<Vec<Order>>, AppError> {
    let rows: Vec<(i64, i64, Option<String>)> =
        sqlx::query_as("SELECT id, bytes, checksum FROM orders WHERE user = ? ORDER BY id")
            .bind(user.id)
            .fetch_all(&app.database.reader)
            .await?;
    let orders = rows.into_iter().map(|(id, bytes, checksum)| Order {
        id,
        bytes,
        checksum,
    });
    Ok(Json(orders.collect()))
}

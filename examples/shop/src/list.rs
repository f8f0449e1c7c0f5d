//! `GET /orders`: one's own. It defers nothing, and costs nothing for that.

use axum::{Json, extract::State};
use serde::Serialize;
use sqlx::FromRow;

use crate::{refused::Refused, session::User, state::App};

#[derive(FromRow, Serialize)]
pub struct Order {
    id: i64,
    bytes: i64,
    /// Not there yet right after the order.
    checksum: Option<String>,
}

pub async fn list(State(app): State<App>, user: User) -> Result<Json<Vec<Order>>, Refused> {
    let orders = sqlx::query_as("SELECT id, bytes, checksum FROM orders WHERE user = ? ORDER BY id")
        .bind(user.id)
        .fetch_all(&app.database.reader)
        .await?;
    Ok(Json(orders))
}

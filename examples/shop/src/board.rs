//! `GET /`: a board that says how much was ordered. It is read by many, so it is in memory, and
//! refreshed after each order.

use std::sync::{Arc, Mutex};

use axum::{Json, extract::State};
use serde::Serialize;

use crate::{database::Database, state::App};

#[derive(Clone, Copy, Serialize)]
pub struct Totals {
    orders: i64,
    bytes: i64,
}

#[derive(Clone)]
pub struct Board {
    totals: Arc<Mutex<Totals>>,
}

impl Board {
    pub async fn open(database: &Database) -> Result<Self, sqlx::Error> {
        Ok(Self {
            totals: Arc::new(Mutex::new(read(database).await?)),
        })
    }

    /// Not `unique`: the one that runs may have looked before this order was there.
    pub async fn refresh(self, database: Database) -> Result<(), sqlx::Error> {
        let totals = read(&database).await?;
        let mut shown = self.totals.lock().expect("nobody panics while holding it");
        // Those of several requests run side by side, and one that has looked earlier may be later
        // here. Orders are never taken away.
        if totals.orders > shown.orders {
            *shown = totals;
        }
        Ok(())
    }
}

async fn read(database: &Database) -> Result<Totals, sqlx::Error> {
    let (orders, bytes) = sqlx::query_as("SELECT count(*), coalesce(sum(bytes), 0) FROM orders")
        .fetch_one(&database.reader)
        .await?;
    Ok(Totals { orders, bytes })
}

pub async fn show(State(app): State<App>) -> Json<Totals> {
    Json(
        *app.board
            .totals
            .lock()
            .expect("nobody panics while holding it"),
    )
}

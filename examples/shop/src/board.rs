//! `GET /`: the totals of all orders, cached and refreshed after each order.

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

    /// Reads the totals again. This is not `unique`, because a running refresh may have read the
    /// totals before this order was stored.
    pub async fn refresh(self, database: Database) -> Result<(), sqlx::Error> {
        let totals = read(&database).await?;
        let mut cached = self.totals.lock().expect("no panic while locked");
        // Refreshes of several requests run concurrently, and an older result may arrive later.
        // Orders are never deleted, so the larger result is the newer one.
        if totals.orders > cached.orders {
            *cached = totals;
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
    Json(*app.board.totals.lock().expect("no panic while locked"))
}

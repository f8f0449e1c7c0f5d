//! `GET /`: the totals of all orders, cached and refreshed after each order.

use std::sync::{Arc, Mutex};

use axum::{Json, extract::State};
use axum_defer::defer;
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

    /// Defers a refresh. One runs at a time, and one more waits, because the active one may have
    /// read the totals before this order was stored. So an older result never replaces a newer one.
    pub fn defer_refresh(self, database: Database) {
        defer(async move {
            let totals = read(&database).await?;
            *self.totals.lock().expect("no panic while locked") = totals;
            Ok::<_, sqlx::Error>(())
        })
        .name("board")
        .coalesce();
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

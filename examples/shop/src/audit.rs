//! The audit log: one row for each request that does something, whatever becomes of it.

use axum_defer::{Completion, defer};

use crate::database::Database;

pub struct Entry {
    pub action: &'static str,
    pub who: String,
    pub order: Option<i64>,
}

/// Called early, so that what fails is in the log, and again by who knows more: a name is there
/// once per request, and the later one takes the place of the earlier.
pub fn audit(database: &Database, entry: Entry) {
    let writer = database.writer.clone();
    defer(move |completion: Completion| async move {
        sqlx::query(
            "INSERT INTO audit (action, who, order_id, status, delivery) VALUES (?, ?, ?, ?, ?)",
        )
        .bind(entry.action)
        .bind(entry.who)
        .bind(entry.order)
        .bind(completion.status().map(|status| status.as_u16()))
        .bind(format!("{:?}", completion.delivery()))
        .execute(&writer)
        .await?;
        Ok::<_, sqlx::Error>(())
    })
    .name("audit")
    .always();
}

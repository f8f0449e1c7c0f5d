//! The audit log: one row per request that does something, whether it succeeds or not.

use axum_defer::{Completion, defer};

use crate::database::Database;

/// The maximum length of a mail address.
pub const MAX_EMAIL: usize = 254;

pub struct Entry {
    pub action: &'static str,
    pub email: String,
    pub order: Option<i64>,
}

/// Defers an entry. Handlers call this early, so that failures are logged, and may call it again
/// with more data: a callback replaces an earlier one of the same name.
pub fn audit(database: &Database, entry: Entry) {
    let writer = database.writer.clone();
    // The address is not validated yet, and anyone can send one.
    let email: String = entry.email.chars().take(MAX_EMAIL).collect();
    defer(move |completion: Completion| async move {
        sqlx::query(
            "INSERT INTO audit (action, email, order_id, status, delivery) VALUES (?, ?, ?, ?, ?)",
        )
        .bind(entry.action)
        .bind(email)
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

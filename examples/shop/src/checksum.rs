//! CPU-bound work, which would block the runtime's threads.

use std::{fs::File, io};

use axum_defer::{defer, defer_blocking};
use sha2::{Digest, Sha256};

use crate::{database::Database, state::App, token};

/// Defers the computation of the document's checksum.
pub fn defer_checksum(app: &App, order: i64, document: &str) {
    let database = app.database.clone();
    let path = app.files.path(document);
    defer_blocking(move || {
        let mut checksum = Sha256::new();
        io::copy(&mut File::open(path)?, &mut checksum)?;
        let checksum = token::hex(&checksum.finalize());
        // A callback of the same request that runs on the runtime's threads.
        defer(store(database, order, checksum)).name("store the checksum");
        Ok::<_, io::Error>(())
    })
    .name("checksum");
}

async fn store(database: Database, order: i64, checksum: String) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE orders SET checksum = ? WHERE id = ?")
        .bind(checksum)
        .bind(order)
        .execute(&database.writer)
        .await?;
    Ok(())
}

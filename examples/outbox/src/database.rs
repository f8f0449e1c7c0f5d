//! The database: one file, opened so that what is committed stays.

use std::{path::Path, time::Duration};

use sqlx::{
    SqlitePool,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

pub async fn open(path: impl AsRef<Path>) -> Result<SqlitePool, sqlx::Error> {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        // Readers don't wait for the writer.
        .journal_mode(SqliteJournalMode::Wal)
        // With WAL and anything less, a commit is in the file only at the next checkpoint: a
        // power cut would take orders with it that clients were told of.
        .synchronous(SqliteSynchronous::Full)
        // There is one writer at a time, and the others wait for it.
        .busy_timeout(Duration::from_secs(5))
        .foreign_keys(true);
    let database = SqlitePoolOptions::new()
        .max_connections(4)
        .connect_with(options)
        .await?;
    sqlx::raw_sql(include_str!("schema.sql"))
        .execute(&database)
        .await?;
    Ok(database)
}

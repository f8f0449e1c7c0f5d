//! The SQLite file, opened so that committed transactions survive a crash.

use std::{path::Path, time::Duration};

use sqlx::{
    Connection, Sqlite, SqlitePool, Transaction,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

pub const MAX_CONNECTIONS: u32 = 4;

pub async fn open(path: impl AsRef<Path>) -> Result<SqlitePool, sqlx::Error> {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        // Readers do not wait for the writer.
        .journal_mode(SqliteJournalMode::Wal)
        // With WAL and a lower level, a commit reaches the disk only at the next checkpoint, so a
        // power failure would lose acknowledged orders.
        .synchronous(SqliteSynchronous::Full)
        // SQLite has one writer at a time. The others wait.
        .busy_timeout(Duration::from_secs(5))
        .foreign_keys(true);
    let database = SqlitePoolOptions::new()
        .max_connections(MAX_CONNECTIONS)
        // If the disk is full, SQLite rolls the transaction back on its own. sqlx then fails to
        // roll it back again and counts it as open, and this connection could never begin another.
        .before_acquire(|connection, _| {
            Box::pin(async move { Ok(!connection.is_in_transaction()) })
        })
        .connect_with(options)
        .await?;
    sqlx::raw_sql(include_str!("schema.sql"))
        .execute(&database)
        .await?;
    Ok(database)
}

/// Begins a transaction that writes.
///
/// A transaction that reads before it writes can fail as "busy" without waiting. This one waits for
/// the write lock before its first statement.
pub async fn begin(database: &SqlitePool) -> Result<Transaction<'static, Sqlite>, sqlx::Error> {
    database.begin_with("BEGIN IMMEDIATE").await
}

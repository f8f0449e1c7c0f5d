//! The database. Requests write to it in transactions that are committed before the response.

use std::{path::Path, time::Duration};

use axum_defer::before_response;
use sqlx::{
    Connection, Sqlite, SqlitePool, Transaction,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

#[derive(Clone)]
pub struct Database {
    pub reader: SqlitePool,
    /// One connection, because SQLite has one writer at a time. The pool is a fair queue. Several
    /// connections would retry, and some would fail as "busy".
    pub writer: SqlitePool,
}

impl Database {
    pub async fn open(path: impl AsRef<Path>) -> Result<Self, sqlx::Error> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            // Readers do not wait for the writer.
            .journal_mode(SqliteJournalMode::Wal)
            // A commit waits for the disk, so acknowledged requests survive a power failure.
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(Duration::from_secs(5))
            .foreign_keys(true);
        let writer = SqlitePoolOptions::new()
            .max_connections(1)
            // If the disk is full, SQLite rolls the transaction back on its own. sqlx then fails to
            // roll it back again and counts it as open, and this connection could never begin
            // another.
            .before_acquire(|connection, _| {
                Box::pin(async move { Ok(!connection.is_in_transaction()) })
            })
            .connect_with(options.clone())
            .await?;
        sqlx::raw_sql(include_str!("schema.sql"))
            .execute(&writer)
            .await?;
        let reader = SqlitePoolOptions::new()
            .max_connections(4)
            .connect_with(options.read_only(true))
            .await?;
        Ok(Self { reader, writer })
    }

    /// Begins a transaction. Until it ends, all other writers wait, so handlers do slow work first,
    /// such as receiving the upload and hashing the password.
    pub async fn begin(&self) -> Result<Transaction<'static, Sqlite>, sqlx::Error> {
        self.writer.begin_with("BEGIN IMMEDIATE").await
    }
}

/// Commits before the response, if the handler returns a success. If the commit fails, the client
/// gets a 503, and deferred callbacks are skipped. If the handler returns an error, the transaction
/// is dropped, which rolls it back.
pub fn commit_before_response(transaction: Transaction<'static, Sqlite>) {
    before_response(transaction.commit()).name("commit");
}

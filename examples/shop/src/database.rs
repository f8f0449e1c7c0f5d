//! The database, and the one way in which something is written to it by a request: in a transaction
//! that is committed before the client has an answer.

use std::{path::Path, time::Duration};

use axum_defer::before_response;
use sqlx::{
    Sqlite, SqlitePool, Transaction,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

#[derive(Clone)]
pub struct Database {
    pub reader: SqlitePool,
    /// SQLite has one writer at a time. With one connection, those who wait stand in a queue and
    /// come in turn; with several they would try again and again, and some would fail as "busy".
    pub writer: SqlitePool,
}

impl Database {
    pub async fn open(path: impl AsRef<Path>) -> Result<Self, sqlx::Error> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            // Readers don't wait for the writer.
            .journal_mode(SqliteJournalMode::Wal)
            // What a client was told of is on the disk.
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(Duration::from_secs(5))
            .foreign_keys(true);
        let writer = SqlitePoolOptions::new()
            .max_connections(1)
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

    /// Nobody else writes until it is over, so what takes long is done before: the upload is received,
    /// the password is hashed.
    pub async fn begin(&self) -> Result<Transaction<'static, Sqlite>, sqlx::Error> {
        self.writer.begin_with("BEGIN IMMEDIATE").await
    }
}

/// Commits when the handler has returned a success, and the response waits for it. If that fails, the
/// client gets a 503, and what was deferred is skipped. If the handler returns an error, the transaction
/// is dropped, which rolls it back.
pub fn commit_before_response(transaction: Transaction<'static, Sqlite>) {
    before_response(transaction.commit()).name("commit");
}

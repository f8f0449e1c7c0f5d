//! The relay: does what the table of jobs says, at least once.
//!
//! ```text
//!            begin                 it went well
//! waiting ───────────▶ running ─────────────────▶ (deleted)
//!    ▲                  │  │
//!    └──── it failed ───┘  └── for the fifth time ──▶ dead
//! ```

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sqlx::{Sqlite, SqlitePool, Transaction};
use tokio::sync::Mutex;

use crate::mail::Mail;

#[cfg(test)]
mod tests;

const MAX_ATTEMPTS: i64 = 5;

#[derive(Serialize, Deserialize)]
pub enum Job {
    Receipt { order: i64, to: String },
}

impl Job {
    /// Stores the job, if `transaction` is committed.
    pub async fn add(&self, transaction: &mut Transaction<'_, Sqlite>) -> Result<(), sqlx::Error> {
        let work =
            serde_json::to_string(self).map_err(|error| sqlx::Error::Encode(error.into()))?;
        sqlx::query("INSERT INTO jobs (work) VALUES (?)")
            .bind(work)
            .execute(&mut **transaction)
            .await?;
        Ok(())
    }
}

#[derive(Clone)]
pub struct Relay(Arc<Inner>);

struct Inner {
    database: SqlitePool,
    mail: Mail,
    /// Held by the drain that works.
    working: Mutex<()>,
    /// Held by the drain that waits for its turn.
    next: Mutex<()>,
}

impl Relay {
    /// The relay of the one process that works on this database.
    pub async fn new(database: SqlitePool, mail: Mail) -> Result<Self, sqlx::Error> {
        // What runs now was begun by a process that is gone, so it need not be waited for. The
        // attempt counts: a job that ends the process doesn't do so for ever.
        sqlx::query("UPDATE jobs SET next_attempt_at = unixepoch() WHERE state = 'running'")
            .execute(&database)
            .await?;
        Ok(Self(Arc::new(Inner {
            database,
            mail,
            working: Mutex::new(()),
            next: Mutex::new(()),
        })))
    }

    /// Does the jobs that are due, one after the other, until none is left.
    ///
    /// One drain works at a time. Of those that come meanwhile, one waits, since the one that
    /// works may have looked too early for it; the rest have nothing to add and return.
    pub async fn drain(self) -> Result<(), sqlx::Error> {
        let relay = &*self.0;
        let Ok(turn) = relay.next.try_lock() else {
            return Ok(());
        };
        let _working = relay.working.lock().await;
        // Before the first look: who comes from here on waits.
        drop(turn);

        relay.bury().await?;
        while let Some((id, work)) = relay.begin().await? {
            match relay.work(id, &work).await {
                Ok(()) => relay.done(id).await?,
                Err(error) => relay.failed(id, &error).await?,
            }
        }
        Ok(())
    }
}

impl Inner {
    /// Those that never came to an end, because they panicked or took the process with them.
    async fn bury(&self) -> Result<(), sqlx::Error> {
        sqlx::query(
            "UPDATE jobs SET state = 'dead', error = 'never came to an end'
             WHERE state = 'running' AND attempts >= ? AND next_attempt_at <= unixepoch()",
        )
        .bind(MAX_ATTEMPTS)
        .execute(&self.database)
        .await?;
        Ok(())
    }

    /// Takes the next job that is due. When it may be tried again is written down before it is
    /// tried, 1, 2, 4 and 8 minutes from now, so that not even a panic makes it run in circles.
    async fn begin(&self) -> Result<Option<(i64, String)>, sqlx::Error> {
        sqlx::query_as(
            "UPDATE jobs SET
                 state = 'running',
                 attempts = attempts + 1,
                 next_attempt_at = unixepoch() + (60 << attempts)
             WHERE id = (
                 SELECT id FROM jobs WHERE state != 'dead' AND next_attempt_at <= unixepoch()
                 ORDER BY next_attempt_at, id LIMIT 1
             )
             RETURNING id, work",
        )
        .fetch_optional(&self.database)
        .await
    }

    async fn work(&self, id: i64, work: &str) -> Result<(), String> {
        match serde_json::from_str(work).map_err(|error| error.to_string())? {
            Job::Receipt { order, to } => {
                self.mail.send(id, &to).await?;
                tracing::info!("job {id}: {to} has the receipt of order {order}");
                Ok(())
            }
        }
    }

    async fn done(&self, id: i64) -> Result<(), sqlx::Error> {
        sqlx::query("DELETE FROM jobs WHERE id = ?")
            .bind(id)
            .execute(&self.database)
            .await?;
        Ok(())
    }

    async fn failed(&self, id: i64, error: &str) -> Result<(), sqlx::Error> {
        tracing::warn!("job {id}: {error}");
        sqlx::query(
            "UPDATE jobs SET state = iif(attempts >= ?, 'dead', 'waiting'), error = ? WHERE id = ?",
        )
        .bind(MAX_ATTEMPTS)
        .bind(error)
        .bind(id)
        .execute(&self.database)
        .await?;
        Ok(())
    }
}

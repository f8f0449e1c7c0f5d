//! The relay: runs the jobs in the table, each at least once.
//!
//! ```text
//!             start                  success
//! waiting ───────────▶ running ─────────────────▶ (deleted)
//!    ▲                  │  │
//!    └───── failure ────┘  └──── fifth failure ───▶ dead
//! ```

use axum_defer::defer;
use serde::{Deserialize, Serialize};
use sqlx::{Sqlite, SqlitePool, Transaction};

use crate::mail::Mail;

#[cfg(test)]
mod tests;

const MAX_ATTEMPTS: i64 = 5;

#[derive(Serialize, Deserialize)]
pub enum Job {
    Receipt { order: i64, to: String },
}

impl Job {
    /// Adds the job as part of `transaction`.
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
pub struct Relay {
    database: SqlitePool,
    mail: Mail,
}

impl Relay {
    /// Creates the relay. Only one process may use the database.
    pub async fn new(database: SqlitePool, mail: Mail) -> Result<Self, sqlx::Error> {
        // A previous process started these jobs and is gone. The attempt counts, so a job that
        // crashes the process is not retried without a limit.
        sqlx::query("UPDATE jobs SET next_attempt_at = unixepoch() WHERE state = 'running'")
            .execute(&database)
            .await?;
        Ok(Self { database, mail })
    }

    /// Defers a run of all due jobs.
    ///
    /// One run is active at a time. One more waits for it, because the active run may have queried the
    /// table before the caller's job was added. Further ones are duplicates.
    pub fn defer_drain(&self) {
        defer(self.clone().drain()).name("relay").coalesce();
    }

    /// Runs all due jobs, one after the other.
    async fn drain(self) -> Result<(), sqlx::Error> {
        self.bury().await?;
        while let Some((id, work)) = self.start_next().await? {
            match self.run(id, &work).await {
                Ok(()) => self.complete(id).await?,
                Err(error) => self.fail(id, &error).await?,
            }
        }
        Ok(())
    }

    /// Brings forward jobs that are due later than their backoff allows. They were stored before
    /// the system clock was set back.
    pub async fn limit_delays(self) -> Result<(), sqlx::Error> {
        sqlx::query(
            "UPDATE jobs SET next_attempt_at = unixepoch() + iif(attempts = 0, 0, 60 << attempts - 1)
             WHERE state != 'dead'
                 AND next_attempt_at > unixepoch() + iif(attempts = 0, 0, 60 << attempts - 1)",
        )
        .execute(&self.database)
        .await?;
        Ok(())
    }

    /// Marks jobs as dead whose last attempt ended in a panic or a crash.
    async fn bury(&self) -> Result<(), sqlx::Error> {
        sqlx::query(
            "UPDATE jobs SET state = 'dead', error = 'the last attempt did not finish'
             WHERE state = 'running' AND attempts >= ? AND next_attempt_at <= unixepoch()",
        )
        .bind(MAX_ATTEMPTS)
        .execute(&self.database)
        .await?;
        Ok(())
    }

    /// Starts the next due job. The time of the next attempt is stored first, 1, 2, 4, 8, or 16
    /// minutes from now, so that a job that panics is not retried in a loop.
    async fn start_next(&self) -> Result<Option<(i64, String)>, sqlx::Error> {
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

    async fn run(&self, id: i64, work: &str) -> Result<(), String> {
        match serde_json::from_str(work).map_err(|error| error.to_string())? {
            Job::Receipt { order, to } => {
                self.mail.send(id, &to).await?;
                tracing::info!("job {id}: sent the receipt of order {order} to {to}");
                Ok(())
            }
        }
    }

    async fn complete(&self, id: i64) -> Result<(), sqlx::Error> {
        sqlx::query("DELETE FROM jobs WHERE id = ?")
            .bind(id)
            .execute(&self.database)
            .await?;
        Ok(())
    }

    async fn fail(&self, id: i64, error: &str) -> Result<(), sqlx::Error> {
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

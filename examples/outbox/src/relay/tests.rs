use std::{env, fs, path::PathBuf, process, time::Duration};

use axum_defer::DeferLayer;
use sqlx::SqlitePool;

use super::{Job, MAX_ATTEMPTS, Relay};
use crate::{database, mail::Mail};

/// A database for one test, deleted afterwards.
struct Fixture {
    database: SqlitePool,
    folder: PathBuf,
}

impl Fixture {
    async fn new(test: &str) -> Self {
        let folder = env::temp_dir().join(format!("outbox-{}-{test}", process::id()));
        fs::create_dir_all(&folder).unwrap();
        let database = database::open(folder.join("outbox.db")).await.unwrap();
        Self { database, folder }
    }

    /// Creates a relay, like a process that starts.
    async fn relay(&self) -> Relay {
        let mail = Mail::new(self.database.clone(), Duration::ZERO);
        Relay::new(self.database.clone(), mail).await.unwrap()
    }

    async fn add(&self, to: &str) {
        self.try_add(to).await.unwrap();
    }

    async fn try_add(&self, to: &str) -> Result<(), sqlx::Error> {
        let mut transaction = database::begin(&self.database).await?;
        let to = to.to_owned();
        Job::Receipt { order: 1, to }.add(&mut transaction).await?;
        transaction.commit().await
    }

    async fn sent(&self) -> Vec<String> {
        sqlx::query_scalar("SELECT recipient FROM sent_mail ORDER BY key")
            .fetch_all(&self.database)
            .await
            .unwrap()
    }

    /// Returns the state and the attempts of each remaining job.
    async fn jobs(&self) -> Vec<(String, i64)> {
        sqlx::query_as("SELECT state, attempts FROM jobs ORDER BY id")
            .fetch_all(&self.database)
            .await
            .unwrap()
    }

    /// Returns the seconds until the first job is due.
    async fn delay(&self) -> i64 {
        sqlx::query_scalar("SELECT next_attempt_at - unixepoch() FROM jobs ORDER BY id")
            .fetch_one(&self.database)
            .await
            .unwrap()
    }

    async fn execute(&self, statement: &'static str) {
        sqlx::query(statement)
            .execute(&self.database)
            .await
            .unwrap();
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

#[tokio::test]
async fn failing_job_is_retried_then_dead() {
    let fixture = Fixture::new("failing").await;
    let relay = fixture.relay().await;
    fixture.add("nowhere").await;
    fixture.add("ada@example.org").await;

    for attempt in 1..=MAX_ATTEMPTS {
        relay.clone().drain().await.unwrap();
        let state = if attempt == MAX_ATTEMPTS {
            "dead"
        } else {
            "waiting"
        };
        assert_eq!(fixture.jobs().await, [(state.to_owned(), attempt)]);
        // The other job was not blocked.
        assert_eq!(fixture.sent().await, ["ada@example.org"]);
        let delay = fixture.delay().await;
        // On a slow machine, some seconds may have passed.
        let backoff = 60 << (attempt - 1);
        assert!((backoff - 30..=backoff).contains(&delay), "{delay} s");

        // Not due yet.
        relay.clone().drain().await.unwrap();
        assert_eq!(fixture.jobs().await, [(state.to_owned(), attempt)]);
        fixture
            .execute("UPDATE jobs SET next_attempt_at = unixepoch()")
            .await;
    }

    // A dead job stays dead if it is due, and keeps its error.
    relay.clone().drain().await.unwrap();
    assert_eq!(fixture.jobs().await, [("dead".to_owned(), MAX_ATTEMPTS)]);
    let error: String = sqlx::query_scalar("SELECT error FROM jobs")
        .fetch_one(&fixture.database)
        .await
        .unwrap();
    assert_eq!(error, "\"nowhere\" is not an address");
}

#[tokio::test]
async fn job_added_during_drain_runs() {
    let fixture = Fixture::new("during").await;
    let relay = fixture.relay().await;
    let layer = DeferLayer::new();
    let deferred = layer.handle();
    let drain = || {
        let (layer, relay) = (layer.clone(), relay.clone());
        async move { layer.scope(async { relay.defer_drain() }).await }
    };
    // Blocks a drain at its first statement.
    let mut writing = database::begin(&fixture.database).await.unwrap();
    let first = tokio::spawn(drain());
    while deferred.running() == 0 {
        tokio::task::yield_now().await;
    }
    let to = "ada@example.org".to_owned();
    Job::Receipt { order: 1, to }
        .add(&mut writing)
        .await
        .unwrap();
    let second = tokio::spawn(drain());
    while deferred.pending() == 0 {
        tokio::task::yield_now().await;
    }
    // A duplicate ends immediately, because the second drain will find the job.
    drain().await;
    assert_eq!((deferred.running(), deferred.pending()), (1, 1));

    writing.commit().await.unwrap();
    first.await.unwrap();
    second.await.unwrap();
    assert_eq!(fixture.sent().await, ["ada@example.org"]);
    assert!(fixture.jobs().await.is_empty());
}

#[tokio::test]
async fn interrupted_job_is_due_at_startup() {
    let fixture = Fixture::new("interrupted").await;
    fixture.add("ada@example.org").await;
    fixture.add("poison@example.org").await;
    fixture
        .execute(
            "UPDATE jobs SET state = 'running', attempts = iif(id = 2, 5, 1),
                 next_attempt_at = unixepoch() + 3600",
        )
        .await;

    fixture.relay().await.drain().await.unwrap();
    assert_eq!(fixture.sent().await, ["ada@example.org"]);
    // Its attempts are used up.
    assert_eq!(fixture.jobs().await, [("dead".to_owned(), 5)]);
}

#[tokio::test]
async fn panicked_job_waits_for_backoff() {
    let fixture = Fixture::new("panicked").await;
    let relay = fixture.relay().await;
    fixture.add("ada@example.org").await;
    // A panic leaves the job in this state.
    relay.start_next().await.unwrap().unwrap();

    relay.drain().await.unwrap();
    assert!(fixture.sent().await.is_empty());
    assert_eq!(fixture.jobs().await, [("running".to_owned(), 1)]);
}

#[tokio::test]
async fn transaction_after_full_disk_commits() {
    let fixture = Fixture::new("full").await;
    // Rolls the transaction back inside SQLite, as a full disk does.
    fixture
        .execute(
            "CREATE TRIGGER full BEFORE INSERT ON jobs
             BEGIN SELECT RAISE(ROLLBACK, 'disk full'); END",
        )
        .await;
    for _ in 0..2 * database::MAX_CONNECTIONS {
        let error = fixture.try_add("ada@example.org").await.unwrap_err();
        assert!(error.to_string().contains("disk full"), "{error}");
    }

    fixture.execute("DROP TRIGGER full").await;
    for _ in 0..2 * database::MAX_CONNECTIONS {
        fixture.add("ada@example.org").await;
    }
}

#[tokio::test]
async fn job_dated_in_future_is_due_after_backoff() {
    let fixture = Fixture::new("clock").await;
    let relay = fixture.relay().await;
    fixture.add("ada@example.org").await;
    fixture.add("alan@example.org").await;
    // Stored before the clock was set back by a year. The second job has failed twice.
    fixture
        .execute(
            "UPDATE jobs SET attempts = iif(id = 2, 2, 0),
                 next_attempt_at = unixepoch() + 365 * 24 * 3600",
        )
        .await;

    relay.clone().limit_delays().await.unwrap();
    relay.drain().await.unwrap();
    assert_eq!(fixture.sent().await, ["ada@example.org"]);
    let delay = fixture.delay().await;
    assert!((90..=120).contains(&delay), "{delay} s");
}

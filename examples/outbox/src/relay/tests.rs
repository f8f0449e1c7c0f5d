use std::{env, fs, path::PathBuf, process, time::Duration};

use sqlx::SqlitePool;

use super::{Job, MAX_ATTEMPTS, Relay};
use crate::{database, mail::Mail};

/// A database of its own for each test, deleted with it.
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

    /// What a process does when it starts.
    async fn relay(&self) -> Relay {
        let mail = Mail::new(self.database.clone(), Duration::ZERO);
        Relay::new(self.database.clone(), mail).await.unwrap()
    }

    async fn add(&self, to: &str) {
        let mut transaction = self.database.begin().await.unwrap();
        let to = to.to_owned();
        let job = Job::Receipt { order: 1, to };
        job.add(&mut transaction).await.unwrap();
        transaction.commit().await.unwrap();
    }

    async fn sent(&self) -> Vec<String> {
        sqlx::query_scalar("SELECT recipient FROM sent_mail ORDER BY key")
            .fetch_all(&self.database)
            .await
            .unwrap()
    }

    /// State and attempts of each job that is still there.
    async fn jobs(&self) -> Vec<(String, i64)> {
        sqlx::query_as("SELECT state, attempts FROM jobs ORDER BY id")
            .fetch_all(&self.database)
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
async fn a_refused_job_is_tried_again_later_and_is_dead_in_the_end() {
    let fixture = Fixture::new("refused").await;
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
        // It holds up nobody.
        assert_eq!(fixture.sent().await, ["ada@example.org"]);
        let delay: i64 = sqlx::query_scalar("SELECT next_attempt_at - unixepoch() FROM jobs")
            .fetch_one(&fixture.database)
            .await
            .unwrap();
        // Some seconds may have passed, on a slow machine.
        let promised = 60 << (attempt - 1);
        assert!((promised - 30..=promised).contains(&delay), "{delay} s");

        // Not yet.
        relay.clone().drain().await.unwrap();
        assert_eq!(fixture.jobs().await, [(state.to_owned(), attempt)]);
        fixture
            .execute("UPDATE jobs SET next_attempt_at = unixepoch()")
            .await;
    }

    // Due or not, it stays dead; what it says is for a person.
    relay.clone().drain().await.unwrap();
    assert_eq!(fixture.jobs().await, [("dead".to_owned(), MAX_ATTEMPTS)]);
    let error: String = sqlx::query_scalar("SELECT error FROM jobs")
        .fetch_one(&fixture.database)
        .await
        .unwrap();
    assert_eq!(error, "\"nowhere\" is no address");
}

#[tokio::test]
async fn a_nudge_during_a_drain_is_not_lost() {
    let fixture = Fixture::new("nudge").await;
    let relay = fixture.relay().await;
    // A drain that has looked for the last time, and has not returned.
    let working = relay.0.working.lock().await;

    let waiting = tokio::spawn(relay.clone().drain());
    while relay.0.next.try_lock().is_ok() {
        tokio::task::yield_now().await;
    }
    fixture.add("ada@example.org").await;
    // One waits already, and will find the job.
    relay.clone().drain().await.unwrap();
    assert!(fixture.sent().await.is_empty());

    drop(working);
    waiting.await.unwrap().unwrap();
    assert_eq!(fixture.sent().await, ["ada@example.org"]);
    assert!(fixture.jobs().await.is_empty());
}

#[tokio::test]
async fn a_drain_that_works_leaves_the_next_place_to_a_nudge() {
    let fixture = Fixture::new("place").await;
    let relay = fixture.relay().await;
    // It can't come further than to its first statement.
    let writing = fixture
        .database
        .begin_with("BEGIN IMMEDIATE")
        .await
        .unwrap();
    let drain = tokio::spawn(relay.clone().drain());
    while relay.0.working.try_lock().is_ok() {
        tokio::task::yield_now().await;
    }
    assert!(relay.0.next.try_lock().is_ok());
    writing.rollback().await.unwrap();
    drain.await.unwrap().unwrap();
}

#[tokio::test]
async fn what_a_crash_cut_off_is_due_at_the_next_start_unless_it_is_one_too_many() {
    let fixture = Fixture::new("crash").await;
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
    assert_eq!(fixture.jobs().await, [("dead".to_owned(), 5)]);
}

#[tokio::test]
async fn a_panic_waits_like_a_failure() {
    let fixture = Fixture::new("panic").await;
    let relay = fixture.relay().await;
    fixture.add("ada@example.org").await;
    // What a panic leaves: begun, and never said to have ended.
    relay.0.begin().await.unwrap().unwrap();

    relay.drain().await.unwrap();
    assert!(fixture.sent().await.is_empty());
    assert_eq!(fixture.jobs().await, [("running".to_owned(), 1)]);
}

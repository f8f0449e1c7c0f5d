//! A database for each test, on the server in `DATABASE_URL`, and apps that work on it.

use std::{
    collections::HashMap,
    env,
    fs::{self, File},
    path::PathBuf,
    process::Command,
    time::Duration,
};

use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tokio::runtime::Runtime;

use crate::killing::process::Process;

pub struct Database {
    runtime: Runtime,
    url: String,
    log: PathBuf,
}

impl Database {
    pub fn new(test: &str) -> Self {
        let server = env::var("DATABASE_URL");
        let server = server.expect("a server: ./with-postgres cargo test");
        let (host, _) = server.rsplit_once('/').expect("a database in DATABASE_URL");
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(test);
        fs::create_dir_all(&folder).unwrap();
        let log = folder.join("log");
        File::create(&log).unwrap();
        let runtime = Runtime::new().unwrap();
        let url = format!("{host}/{test}");
        let created = runtime.block_on(async {
            let mut connection = PgConnection::connect(&server).await?;
            for statement in [
                format!("DROP DATABASE IF EXISTS {test} WITH (FORCE)"),
                format!("CREATE DATABASE {test}"),
            ] {
                sqlx::query(AssertSqlSafe(statement))
                    .execute(&mut connection)
                    .await?;
            }
            connection.close().await
        });
        created.unwrap();
        Self { runtime, url, log }
    }

    pub fn start_app(&self, mail: Duration, lost_after: Duration) -> Process {
        let log = File::options().append(true).open(&self.log).unwrap();
        Process::start(
            Command::new(env!("CARGO_BIN_EXE_jobs"))
                .env("DATABASE_URL", &self.url)
                .env("MAIL_MILLISECONDS", mail.as_millis().to_string())
                .env(
                    "LOST_AFTER_MILLISECONDS",
                    lost_after.as_millis().to_string(),
                )
                .stderr(log),
        )
    }

    pub fn look<T>(&self, look: impl AsyncFnOnce(&mut PgConnection) -> sqlx::Result<T>) -> T {
        let result = self.runtime.block_on(async {
            let mut connection = PgConnection::connect(&self.url).await?;
            let result = look(&mut connection).await?;
            connection.close().await?;
            Ok::<T, sqlx::Error>(result)
        });
        result.unwrap()
    }

    pub fn count(&self, query: &'static str) -> i64 {
        self.look(async |connection| sqlx::query_scalar(query).fetch_one(connection).await)
    }

    pub fn map(&self, query: &'static str) -> HashMap<String, i64> {
        let rows: Vec<_> =
            self.look(async |connection| sqlx::query_as(query).fetch_all(connection).await);
        rows.into_iter().collect()
    }

    pub fn wait_until_nothing_is_left_to_do(&self) {
        self.look(async |connection| {
            for _ in 0..3_000 {
                let left: i64 = sqlx::query_scalar(
                    "SELECT count(*) FROM graphile_worker._private_jobs
                     WHERE attempts < max_attempts OR locked_by IS NOT NULL",
                )
                .fetch_one(&mut *connection)
                .await?;
                if left == 0 {
                    return Ok(());
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            panic!("jobs are left, see {}", self.log.display());
        });
    }
}

//! A database of the server in `DATABASE_URL`, and apps that use it.

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

use crate::test_support::process::Process;

pub struct Database {
    runtime: Runtime,
    name: String,
    server_url: String,
    url: String,
    log: PathBuf,
}

/// Settings of an app.
pub struct Settings {
    pub mail: Duration,
    pub poll: Duration,
    pub lost_after: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            mail: Duration::from_millis(10),
            poll: Duration::from_secs(1),
            // Longer than a test.
            lost_after: Duration::from_secs(600),
        }
    }
}

impl Database {
    /// Creates an empty database.
    pub fn new(name: &str) -> Self {
        let server_url = env::var("DATABASE_URL");
        let server_url = server_url.expect("DATABASE_URL is set: ./with-postgres cargo test");
        let (host, _) = server_url.rsplit_once('/').expect("it names a database");
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir_all(&folder).unwrap();
        let log = folder.join("log");
        File::create(&log).unwrap();
        let database = Self {
            runtime: Runtime::new().unwrap(),
            name: name.to_owned(),
            url: format!("{host}/{name}"),
            server_url,
            log,
        };
        database.on_server(format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"));
        database.on_server(format!("CREATE DATABASE {name}"));
        database
    }

    pub fn start_app(&self, settings: &Settings) -> Process {
        let log = File::options().append(true).open(&self.log).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_jobs"));
        for (variable, value) in [
            ("MAIL_MILLISECONDS", settings.mail),
            ("POLL_MILLISECONDS", settings.poll),
            ("LOST_AFTER_MILLISECONDS", settings.lost_after),
        ] {
            command.env(variable, value.as_millis().to_string());
        }
        Process::start(command.env("DATABASE_URL", &self.url).stderr(log))
    }

    /// Runs a statement on another database of the server.
    fn on_server(&self, statement: String) {
        let result = self.runtime.block_on(async {
            let mut connection = PgConnection::connect(&self.server_url).await?;
            sqlx::query(AssertSqlSafe(statement))
                .execute(&mut connection)
                .await?;
            connection.close().await
        });
        result.unwrap();
    }

    /// Allows or refuses new connections.
    pub fn allow_connections(&self, allow: bool) {
        let name = &self.name;
        self.on_server(format!("ALTER DATABASE {name} ALLOW_CONNECTIONS {allow}"));
    }

    /// Closes the connections of the apps.
    pub fn close_connections(&self) {
        self.on_server(format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{}'",
            self.name
        ));
    }

    pub fn with_connection<T>(
        &self,
        query: impl AsyncFnOnce(&mut PgConnection) -> sqlx::Result<T>,
    ) -> T {
        let result = self.runtime.block_on(async {
            let mut connection = PgConnection::connect(&self.url).await?;
            let result = query(&mut connection).await?;
            connection.close().await?;
            Ok::<T, sqlx::Error>(result)
        });
        result.unwrap()
    }

    pub fn execute(&self, statement: &'static str) {
        self.with_connection(async |connection| {
            sqlx::query(statement).execute(connection).await?;
            Ok(())
        });
    }

    pub fn count(&self, query: &'static str) -> i64 {
        self.with_connection(async |connection| {
            sqlx::query_scalar(query).fetch_one(connection).await
        })
    }

    pub fn map(&self, query: &'static str) -> HashMap<String, i64> {
        let rows: Vec<_> = self
            .with_connection(async |connection| sqlx::query_as(query).fetch_all(connection).await);
        rows.into_iter().collect()
    }

    /// Waits until `query` returns `count`.
    pub fn wait_for(&self, count: i64, query: &'static str) {
        self.with_connection(async |connection| {
            for _ in 0..3_000 {
                let current: i64 = sqlx::query_scalar(query)
                    .fetch_one(&mut *connection)
                    .await?;
                if current == count {
                    return Ok(());
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            panic!("not {count}: {query}, see {}", self.log.display());
        });
    }

    pub fn wait_until_empty(&self) {
        self.wait_for(
            0,
            "SELECT count(*) FROM graphile_worker._private_jobs
             WHERE attempts < max_attempts OR locked_by IS NOT NULL",
        );
    }

    /// Waits until the log contains `text`.
    pub fn wait_for_log(&self, text: &str) {
        for _ in 0..3_000 {
            if fs::read_to_string(&self.log).unwrap().contains(text) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("not in {}: {text}", self.log.display());
    }
}

//! Kills the app at random times and counts which jobs have run.
//!
//! `cargo test --test kill -- --nocapture` prints the counts and the seed. `KILL_SEED` sets the seed.

use std::{
    collections::HashMap,
    fs::{self, File},
    path::PathBuf,
    process::Command,
    thread,
    time::Duration,
};

use sqlx::{ConnectOptions, Connection, SqliteConnection, sqlite::SqliteConnectOptions};
use tokio::runtime::Runtime;

use crate::test_support::{
    client::{Request, send_orders},
    process::Process,
    random::Random,
};

#[path = "../../test_support/mod.rs"]
mod test_support;

/// Minimum number of kills. Up to three times as many, until each of the [`Hits`] has occurred.
const ROUNDS: u64 = 30;
const CLIENTS: usize = 4;
/// Maximum number of requests of one client in one round.
const REQUESTS: usize = 40;

/// The app's file. Test connections to it are closed before the app starts again, because the last
/// connection cleans up after a crash.
struct Database {
    runtime: Runtime,
    folder: PathBuf,
}

impl Database {
    fn new(test: &str) -> Self {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(test);
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        let runtime = Runtime::new().unwrap();
        Self { runtime, folder }
    }

    fn start_app(&self, send_milliseconds: u32) -> Process {
        let log = self.folder.join("log");
        let log = File::options().append(true).create(true).open(log).unwrap();
        Process::start(
            Command::new(env!("CARGO_BIN_EXE_outbox"))
                .env("DATABASE", self.folder.join("outbox.db"))
                .env("MAIL_MILLISECONDS", send_milliseconds.to_string())
                .stderr(log),
        )
    }

    fn with_connection<T>(
        &self,
        query: impl AsyncFnOnce(&mut SqliteConnection) -> sqlx::Result<T>,
    ) -> T {
        let options = SqliteConnectOptions::new().filename(self.folder.join("outbox.db"));
        let result = self.runtime.block_on(async {
            let mut connection = options.connect().await?;
            let result = query(&mut connection).await?;
            connection.close().await?;
            Ok::<T, sqlx::Error>(result)
        });
        result.unwrap()
    }

    fn count(&self, query: &'static str) -> i64 {
        self.with_connection(async |connection| {
            sqlx::query_scalar(query).fetch_one(connection).await
        })
    }

    fn map(&self, query: &'static str) -> HashMap<String, i64> {
        let rows: Vec<_> = self
            .with_connection(async |connection| sqlx::query_as(query).fetch_all(connection).await);
        rows.into_iter().collect()
    }

    fn wait_until_empty(&self) {
        self.with_connection(async |connection| {
            for _ in 0..6_000 {
                let left: i64 =
                    sqlx::query_scalar("SELECT count(*) FROM jobs WHERE state != 'dead'")
                        .fetch_one(&mut *connection)
                        .await?;
                if left == 0 {
                    return Ok(());
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            panic!("jobs remain, see {}/log", self.folder.display());
        });
    }
}

/// Sends orders from several clients and kills the app: in one third of the rounds right after a
/// commit, in one third on the first byte of a response, and in one third at a random time.
fn send_and_kill(
    database: &Database,
    app: &Process,
    round: u64,
    random: &mut Random,
) -> Vec<Request> {
    let nth = random.within(1..20);
    let at_response = (round % 3 == 1).then_some(nth as usize);
    let committed = database.count("SELECT count(*) FROM orders");
    thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| {
                let name = format!("{round}-{client}");
                let random = Random::new(random.seed());
                let on_first_byte = move |number| {
                    if client == 0 && at_response == Some(number) {
                        app.kill();
                    }
                };
                let send = move || send_orders(app.address, &name, REQUESTS, random, on_first_byte);
                scope.spawn(send)
            })
            .collect();
        match round % 3 {
            0 => database.with_connection(async |connection| {
                let enough = committed + nth as i64;
                let mut now = committed;
                while now < enough && !clients.iter().all(|client| client.is_finished()) {
                    now = sqlx::query_scalar("SELECT count(*) FROM orders")
                        .fetch_one(&mut *connection)
                        .await?;
                }
                app.kill();
                Ok(())
            }),
            1 => {}
            _ => {
                thread::sleep(Duration::from_micros(random.within(0..80_000)));
                app.kill();
            }
        }
        let requests = clients
            .into_iter()
            .flat_map(|client| client.join().unwrap());
        let requests = requests.collect();
        app.kill();
        requests
    })
}

/// Numbers of orders and jobs that the kills have interrupted, by phase.
#[derive(Debug, Default)]
struct Hits {
    between_commit_and_response: usize,
    between_response_and_relay: usize,
    during_job: usize,
}

impl Hits {
    fn are_complete(&self) -> bool {
        self.between_commit_and_response > 0
            && self.between_response_and_relay > 0
            && self.during_job > 0
    }

    fn add(&mut self, database: &Database, requests: &[Request]) {
        let orders = database.map("SELECT email, id FROM orders");
        let jobs = database.map("SELECT json_extract(work, '$.Receipt.to'), attempts FROM jobs");
        for Request { email, status, .. } in requests {
            match (status, jobs.get(email)) {
                (None, _) if orders.contains_key(email) => self.between_commit_and_response += 1,
                (Some(_), Some(0)) => self.between_response_and_relay += 1,
                _ => {}
            }
        }
        self.during_job += jobs.values().filter(|attempts| **attempts > 0).count();
    }
}

#[test]
fn acknowledged_job_after_kill_runs() {
    let database = Database::new("kill");
    let mut random = Random::from_environment();
    let mut requests = Vec::new();
    let mut hits = Hits::default();

    let mut app = database.start_app(2);
    let mut round = 0;
    while round < ROUNDS || (!hits.are_complete() && round < 3 * ROUNDS) {
        let sent = send_and_kill(&database, &app, round, &mut random);
        hits.add(&database, &sent);
        requests.extend(sent);
        app = database.start_app(2);
        database.wait_until_empty();
        round += 1;
    }

    let orders = database.map("SELECT email, id FROM orders");
    let mails = database.map("SELECT recipient, requests FROM sent_mail");
    let (mut once, mut again, mut lost) = (0, 0, 0);
    let (mut rejected, mut unacknowledged) = (0, 0);
    for Request {
        email,
        expected,
        status,
    } in &requests
    {
        let ordered = orders.contains_key(email);
        assert!(status.is_none_or(|status| status == *expected), "{email}");
        assert!(!ordered || *expected == 201, "{email}");
        assert!(ordered || !mails.contains_key(email), "{email}");
        match (status, mails.get(email)) {
            (Some(201), Some(1)) => once += 1,
            (Some(201), Some(_)) => again += 1,
            (Some(201), None) => lost += 1,
            (Some(_), _) => rejected += 1,
            (None, Some(_)) => unacknowledged += 1,
            (None, None) => {}
        }
    }
    println!("{round} kills: {hits:?}");
    println!("jobs of acknowledged orders: run once {once}, run again {again}, lost {lost}");
    println!("jobs of unacknowledged orders: run {unacknowledged}");
    println!("rejected requests without a job: {rejected}");
    assert_eq!(lost, 0);
    assert!(once > 0 && rejected > 0 && hits.are_complete());
    // Each order has a mail, acknowledged or not.
    assert_eq!(mails.len(), orders.len());
    assert_eq!(database.count("SELECT count(*) FROM jobs"), 0);
}

#[test]
fn shutdown_with_due_jobs_runs_them() {
    let database = Database::new("shutdown");
    let app = database.start_app(20);
    let requests = send_orders(app.address, "shutdown", 10, Random::new(1), |_| ());
    let created = requests
        .iter()
        .filter(|request| request.status == Some(201));
    let created = created.count() as i64;
    assert!(created > 0);

    assert!(app.stop().success());
    assert_eq!(database.count("SELECT count(*) FROM sent_mail"), created);
    assert_eq!(database.count("SELECT count(*) FROM jobs"), 0);
}

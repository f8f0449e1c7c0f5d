//! Kills the app at random moments, and counts what became of the jobs.
//!
//! `cargo test --test kill -- --nocapture` prints the counts and the seed; `KILL_SEED` sets it.

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

use crate::killing::{
    client::{Request, send_orders},
    process::Process,
    random::Random,
};

#[path = "../../killing/mod.rs"]
mod killing;

/// At least, and three times as many until each of the [`Hits`] is there.
const ROUNDS: u64 = 30;
const CLIENTS: usize = 4;
/// Of one client in one round, if it is not the app that ends it.
const REQUESTS: usize = 40;

/// The app's file, and connections to it that are closed before the app is started again, so that
/// the app finds what a crash leaves.
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

    fn start_app(&self, mail_milliseconds: u32) -> Process {
        let log = self.folder.join("log");
        let log = File::options().append(true).create(true).open(log).unwrap();
        Process::start(
            Command::new(env!("CARGO_BIN_EXE_outbox"))
                .env("DATABASE", self.folder.join("outbox.db"))
                .env("MAIL_MILLISECONDS", mail_milliseconds.to_string())
                .stderr(log),
        )
    }

    fn look<T>(&self, look: impl AsyncFnOnce(&mut SqliteConnection) -> sqlx::Result<T>) -> T {
        let options = SqliteConnectOptions::new().filename(self.folder.join("outbox.db"));
        let result = self.runtime.block_on(async {
            let mut connection = options.connect().await?;
            let result = look(&mut connection).await?;
            connection.close().await?;
            Ok::<T, sqlx::Error>(result)
        });
        result.unwrap()
    }

    fn count(&self, query: &'static str) -> i64 {
        self.look(async |connection| sqlx::query_scalar(query).fetch_one(connection).await)
    }

    fn map(&self, query: &'static str) -> HashMap<String, i64> {
        let rows: Vec<_> =
            self.look(async |connection| sqlx::query_as(query).fetch_all(connection).await);
        rows.into_iter().collect()
    }

    fn wait_until_nothing_is_left_to_do(&self) {
        self.look(async |connection| {
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
            panic!("jobs are left, see {}/log", self.folder.display());
        });
    }
}

/// Sends orders from several clients, and kills the app in a third of the rounds when it has just
/// committed, in a third on the first byte of an answer, and in a third at any time.
fn send_and_kill(
    database: &Database,
    app: &Process,
    round: u64,
    random: &mut Random,
) -> Vec<Request> {
    let nth = random.within(1..20);
    let at_answer = (round % 3 == 1).then_some(nth as usize);
    let committed = database.count("SELECT count(*) FROM orders");
    thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| {
                let name = format!("{round}-{client}");
                let random = Random::new(random.seed());
                let answered = move |number| {
                    if client == 0 && at_answer == Some(number) {
                        app.kill();
                    }
                };
                let send = move || send_orders(app.address, &name, REQUESTS, random, answered);
                scope.spawn(send)
            })
            .collect();
        match round % 3 {
            0 => database.look(async |connection| {
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
        let told = clients
            .into_iter()
            .flat_map(|client| client.join().unwrap());
        let told = told.collect();
        app.kill();
        told
    })
}

/// What the kills hit, in numbers of orders and jobs.
#[derive(Debug, Default)]
struct Hits {
    between_commit_and_response: usize,
    between_response_and_relay: usize,
    in_mid_job: usize,
}

impl Hits {
    fn are_all_there(&self) -> bool {
        self.between_commit_and_response > 0
            && self.between_response_and_relay > 0
            && self.in_mid_job > 0
    }

    fn add(&mut self, database: &Database, requests: &[Request]) {
        let orders = database.map("SELECT email, id FROM orders");
        let jobs = database.map("SELECT json_extract(work, '$.Receipt.to'), attempts FROM jobs");
        for Request { email, told, .. } in requests {
            match (told, jobs.get(email)) {
                (None, _) if orders.contains_key(email) => self.between_commit_and_response += 1,
                (Some(_), Some(0)) => self.between_response_and_relay += 1,
                _ => {}
            }
        }
        self.in_mid_job += jobs.values().filter(|attempts| **attempts > 0).count();
    }
}

#[test]
fn no_job_of_an_answered_request_is_lost_when_the_app_is_killed() {
    let database = Database::new("kill");
    let mut random = Random::from_environment();
    let mut requests = Vec::new();
    let mut hits = Hits::default();

    let mut app = database.start_app(2);
    let mut round = 0;
    while round < ROUNDS || (!hits.are_all_there() && round < 3 * ROUNDS) {
        let told = send_and_kill(&database, &app, round, &mut random);
        hits.add(&database, &told);
        requests.extend(told);
        app = database.start_app(2);
        database.wait_until_nothing_is_left_to_do();
        round += 1;
    }

    let orders = database.map("SELECT email, id FROM orders");
    let mails = database.map("SELECT recipient, asked FROM sent_mail");
    let (mut once, mut again, mut lost) = (0, 0, 0);
    let (mut failed, mut unanswered) = (0, 0);
    for Request {
        email,
        expected,
        told,
    } in &requests
    {
        let ordered = orders.contains_key(email);
        assert!(told.is_none_or(|status| status == *expected), "{email}");
        assert!(!ordered || *expected == 201, "{email}");
        assert!(ordered || !mails.contains_key(email), "{email}");
        match (told, mails.get(email)) {
            (Some(201), Some(1)) => once += 1,
            (Some(201), Some(_)) => again += 1,
            (Some(201), None) => lost += 1,
            (Some(_), _) => failed += 1,
            (None, Some(_)) => unanswered += 1,
            (None, None) => {}
        }
    }
    println!("killed {round} times: {hits:?}");
    println!("jobs of answered requests: done once {once}, done again {again}, lost {lost}");
    println!("jobs of orders without an answer, done: {unanswered}");
    println!("requests that failed, none done: {failed}");
    assert_eq!(lost, 0);
    assert!(once > 0 && failed > 0 && hits.are_all_there());
    // Answered or not: an order has its mail.
    assert_eq!(mails.len(), orders.len());
    assert_eq!(database.count("SELECT count(*) FROM jobs"), 0);
}

#[test]
fn a_stop_waits_for_the_relay() {
    let database = Database::new("stop");
    let app = database.start_app(20);
    let told = send_orders(app.address, "stop", 10, Random::new(1), |_| ());
    let placed = told.iter().filter(|request| request.told == Some(201));
    let placed = placed.count() as i64;
    assert!(placed > 0);

    assert!(app.stop().success());
    assert_eq!(database.count("SELECT count(*) FROM sent_mail"), placed);
    assert_eq!(database.count("SELECT count(*) FROM jobs"), 0);
}

//! Kills one of two processes at random times and counts which jobs have run.

use std::{thread, time::Duration};

use crate::{
    database::{Database, Settings},
    test_support::{
        client::{Request, send_orders},
        process::Process,
        random::Random,
    },
};

/// Minimum number of kills. Up to three times as many, until each of the [`Hits`] has occurred.
const ROUNDS: u64 = 30;
/// Half of them use the process that is killed, and half use the other.
const CLIENTS: usize = 4;
/// Maximum number of requests of one client in one round.
const REQUESTS: usize = 12;

/// Sends orders to both and kills the first: in one third of the rounds right after a commit, in one
/// third on the first byte of a response, and in one third at a random time.
fn send_and_kill(
    database: &Database,
    [victim, other]: [&Process; 2],
    round: u64,
    random: &mut Random,
) -> Vec<Request> {
    let nth = random.within(1..10);
    let at_response = (round % 3 == 1).then_some(nth as usize);
    let committed = database.count("SELECT count(*) FROM orders");
    thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| {
                let name = format!("{round}-{client}");
                let random = Random::new(random.seed());
                let on_first_byte = move |number| {
                    if client == 0 && at_response == Some(number) {
                        victim.kill();
                    }
                };
                let app = if client % 2 == 0 { victim } else { other };
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
                victim.kill();
                Ok(())
            }),
            1 => {}
            _ => {
                thread::sleep(Duration::from_micros(random.within(0..100_000)));
                victim.kill();
            }
        }
        let requests = clients
            .into_iter()
            .flat_map(|client| client.join().unwrap());
        let requests = requests.collect();
        victim.kill();
        requests
    })
}

/// Numbers of orders and jobs that the kills have interrupted, by phase.
#[derive(Debug, Default)]
struct Hits {
    between_commit_and_response: usize,
    between_response_and_completion: usize,
    in_worker: usize,
}

impl Hits {
    fn are_complete(&self) -> bool {
        self.between_commit_and_response > 0
            && self.between_response_and_completion > 0
            && self.in_worker > 0
    }

    fn add(&mut self, database: &Database, victim: &Process, requests: &[Request]) {
        let jobs = database.map("SELECT payload ->> 'to', id FROM graphile_worker._private_jobs");
        let locked = database.map(
            "SELECT metadata ->> 'pid', count(*) FROM graphile_worker._private_workers AS workers
             JOIN graphile_worker._private_jobs ON locked_by = workers.id
             WHERE metadata ->> 'pid' IS NOT NULL GROUP BY 1",
        );
        let orders = database.map("SELECT email, id FROM orders");
        for Request { email, status, .. } in requests {
            match status {
                None if orders.contains_key(email) => self.between_commit_and_response += 1,
                Some(_) if jobs.contains_key(email) => self.between_response_and_completion += 1,
                _ => {}
            }
        }
        let locked = locked.get(&victim.id().to_string()).copied().unwrap_or(0);
        // Running, or fetched and not started.
        self.in_worker += locked as usize;
    }
}

#[test]
fn acknowledged_job_after_kill_runs() {
    let database = Database::new("kill");
    let mut random = Random::from_environment();
    let mut requests = Vec::new();
    let mut hits = Hits::default();

    let settings = Settings {
        lost_after: Duration::from_millis(600),
        ..Settings::default()
    };
    let start_app = || database.start_app(&settings);
    let mut victim = start_app();
    let mut other = start_app();
    let mut round = 0;
    while round < ROUNDS || (!hits.are_complete() && round < 3 * ROUNDS) {
        let sent = send_and_kill(&database, [&victim, &other], round, &mut random);
        hits.add(&database, &victim, &sent);
        requests.extend(sent);
        victim = start_app();
        database.wait_until_empty();
        // The next round kills the process that survived this one.
        std::mem::swap(&mut victim, &mut other);
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
    let left = "SELECT count(*) FROM graphile_worker._private_jobs";
    assert_eq!(database.count(left), 0);
}

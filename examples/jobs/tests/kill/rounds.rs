//! Kills one of two processes at random moments, and counts what became of the jobs.

use std::{thread, time::Duration};

use crate::{
    database::Database,
    killing::{
        client::{Request, send_orders},
        process::Process,
        random::Random,
    },
};

/// At least, and three times as many until each of the [`Hits`] is there.
const ROUNDS: u64 = 30;
/// In turn, one to the process that is killed and one to the other.
const CLIENTS: usize = 4;
/// Of one client in one round, if it is not the app that ends it.
const REQUESTS: usize = 12;

/// Sends orders to both, and kills the first in a third of the rounds when one of the two has just
/// committed, in a third on the first byte of an answer, and in a third at any time.
fn send_and_kill(
    database: &Database,
    [victim, other]: [&Process; 2],
    round: u64,
    random: &mut Random,
) -> Vec<Request> {
    let nth = random.within(1..10);
    let at_answer = (round % 3 == 1).then_some(nth as usize);
    let committed = database.count("SELECT count(*) FROM orders");
    thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| {
                let name = format!("{round}-{client}");
                let random = Random::new(random.seed());
                let answered = move |number| {
                    if client == 0 && at_answer == Some(number) {
                        victim.kill();
                    }
                };
                let app = if client % 2 == 0 { victim } else { other };
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
                victim.kill();
                Ok(())
            }),
            1 => {}
            _ => {
                thread::sleep(Duration::from_micros(random.within(0..100_000)));
                victim.kill();
            }
        }
        let told = clients
            .into_iter()
            .flat_map(|client| client.join().unwrap());
        let told = told.collect();
        victim.kill();
        told
    })
}

/// What the kills hit, in numbers of orders and jobs.
#[derive(Debug, Default)]
struct Hits {
    between_commit_and_response: usize,
    between_response_and_worker: usize,
    in_mid_job: usize,
}

impl Hits {
    fn are_all_there(&self) -> bool {
        self.between_commit_and_response > 0
            && self.between_response_and_worker > 0
            && self.in_mid_job > 0
    }

    fn add(&mut self, database: &Database, victim: &Process, requests: &[Request]) {
        let waiting = database.map(
            "SELECT payload ->> 'to', id FROM graphile_worker._private_jobs WHERE attempts = 0",
        );
        let locked = database.map(
            "SELECT metadata ->> 'pid', count(*) FROM graphile_worker._private_workers AS workers
             JOIN graphile_worker._private_jobs ON locked_by = workers.id
             WHERE metadata ->> 'pid' IS NOT NULL GROUP BY 1",
        );
        let orders = database.map("SELECT email, id FROM orders");
        for Request { email, told, .. } in requests {
            match told {
                None if orders.contains_key(email) => self.between_commit_and_response += 1,
                Some(_) if waiting.contains_key(email) => self.between_response_and_worker += 1,
                _ => {}
            }
        }
        let locked = locked.get(&victim.id().to_string()).copied().unwrap_or(0);
        self.in_mid_job += locked as usize;
    }
}

#[test]
fn no_job_of_an_answered_request_is_lost_when_one_of_two_processes_is_killed() {
    let database = Database::new("kill");
    let mut random = Random::from_environment();
    let mut requests = Vec::new();
    let mut hits = Hits::default();

    let start_app = || database.start_app(Duration::from_millis(10), Duration::from_millis(600));
    let mut victim = start_app();
    let mut other = start_app();
    let mut round = 0;
    while round < ROUNDS || (!hits.are_all_there() && round < 3 * ROUNDS) {
        let told = send_and_kill(&database, [&victim, &other], round, &mut random);
        hits.add(&database, &victim, &told);
        requests.extend(told);
        victim = start_app();
        database.wait_until_nothing_is_left_to_do();
        // The one that has lived through this is the next.
        std::mem::swap(&mut victim, &mut other);
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
    let left = "SELECT count(*) FROM graphile_worker._private_jobs";
    assert_eq!(database.count(left), 0);
}

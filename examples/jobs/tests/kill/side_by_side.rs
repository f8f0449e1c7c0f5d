//! Two processes on one queue, as on two machines, and a stop that is not a crash.

use std::time::Duration;

use crate::{
    database::Database,
    killing::{client::send_orders, random::Random},
};

const MAIL: Duration = Duration::from_millis(10);
/// Longer than these tests take: nobody is taken for lost.
const LOST_AFTER: Duration = Duration::from_secs(600);

#[test]
fn two_processes_share_the_jobs_and_each_is_done_by_one() {
    let database = Database::new("two_processes");
    let here = database.start_app(MAIL, LOST_AFTER);
    let _there = database.start_app(MAIL, LOST_AFTER);

    // All orders come in here, and both work. Which of the two is faster is up to the scheduler.
    let mut placed = 0;
    for batch in 0..20 {
        let told = send_orders(
            here.address,
            &format!("{batch}"),
            40,
            Random::new(batch),
            |_| (),
        );
        placed += told
            .iter()
            .filter(|request| request.told == Some(201))
            .count();
        database.wait_until_nothing_is_left_to_do();
        if database.count("SELECT count(DISTINCT asked_by) FROM sent_mail") == 2 {
            break;
        }
    }

    let workers = database.map("SELECT asked_by, count(*) FROM sent_mail GROUP BY asked_by");
    println!("{placed} jobs, by worker: {workers:?}");
    assert_eq!(workers.len(), 2);
    assert_eq!(workers.values().sum::<i64>(), placed as i64);
    assert_eq!(
        database.count("SELECT count(*) FROM sent_mail WHERE asked != 1"),
        0
    );
}

#[test]
fn a_stop_leaves_no_job_locked() {
    let database = Database::new("a_stop");
    let app = database.start_app(MAIL, LOST_AFTER);
    let told = send_orders(app.address, "stop", 20, Random::new(1), |_| ());
    let placed = told.iter().filter(|request| request.told == Some(201));
    let placed = placed.count() as i64;
    assert!(placed > 0);

    assert!(app.stop().success());
    let locked = "SELECT count(*) FROM graphile_worker._private_jobs WHERE locked_by IS NOT NULL";
    assert_eq!(database.count(locked), 0);
    let left = database.count("SELECT count(*) FROM graphile_worker._private_jobs");
    assert_eq!(
        database.count("SELECT count(*) FROM sent_mail") + left,
        placed
    );
}

//! The queue under load, with one or two processes.

use std::time::Duration;

use crate::{
    database::{Database, Settings},
    test_support::{
        client::{connect, order_request, read_response, send_orders},
        random::Random,
    },
};

#[test]
fn job_with_two_processes_runs_once() {
    let database = Database::new("two_processes");
    let first = database.start_app(&Settings::default());
    let _second = database.start_app(&Settings::default());

    // The first process receives all orders. The scheduler decides which one runs a job.
    let mut created = 0;
    for batch in 0..20 {
        let requests = send_orders(
            first.address,
            &format!("{batch}"),
            40,
            Random::new(batch),
            |_| (),
        );
        created += requests
            .iter()
            .filter(|request| request.status == Some(201))
            .count();
        database.wait_until_empty();
        if database.count("SELECT count(DISTINCT worker) FROM sent_mail") == 2 {
            break;
        }
    }

    let workers = database.map("SELECT worker, count(*) FROM sent_mail GROUP BY worker");
    println!("{created} jobs, by worker: {workers:?}");
    assert_eq!(workers.len(), 2);
    assert_eq!(workers.values().sum::<i64>(), created as i64);
    let repeated = "SELECT count(*) FROM sent_mail WHERE requests != 1";
    assert_eq!(database.count(repeated), 0);
}

#[test]
fn backlog_drains_without_polling() {
    let database = Database::new("backlog");
    let settings = Settings {
        poll: Duration::from_secs(600),
        ..Settings::default()
    };
    // The first start creates the queue.
    assert!(database.start_app(&settings).stop().success());
    database.execute(
        "SELECT graphile_worker.add_job(
             'send_receipt', json_build_object('order', i, 'to', i || '@example.org')
         ) FROM generate_series(1, 100) AS i",
    );

    let _app = database.start_app(&settings);
    database.wait_for(100, "SELECT count(*) FROM sent_mail");
}

#[test]
fn shutdown_leaves_no_job_locked() {
    let database = Database::new("shutdown");
    let app = database.start_app(&Settings::default());
    let requests = send_orders(app.address, "shutdown", 20, Random::new(1), |_| ());
    let created = requests
        .iter()
        .filter(|request| request.status == Some(201));
    let created = created.count() as i64;
    assert!(created > 0);

    assert!(app.stop().success());
    let locked = "SELECT count(*) FROM graphile_worker._private_jobs WHERE locked_by IS NOT NULL";
    assert_eq!(database.count(locked), 0);
    let left = database.count("SELECT count(*) FROM graphile_worker._private_jobs");
    assert_eq!(
        database.count("SELECT count(*) FROM sent_mail") + left,
        created
    );
}

#[test]
fn nul_in_order_is_bad_request() {
    use std::io::Write;

    let database = Database::new("nul");
    let app = database.start_app(&Settings::default());
    let mut stream = connect(app.address).unwrap();
    for (item, email) in [
        ("tea", r"ada\u0000@example.org"),
        (r"te\u0000a", "ada@example.org"),
    ] {
        let request = order_request(item, 1, email);
        stream.write_all(request.as_bytes()).unwrap();
        assert_eq!(read_response(&mut stream, || ()), (Some(400), false));
    }
}

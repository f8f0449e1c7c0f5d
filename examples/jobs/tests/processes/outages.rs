//! Lost connections to Postgres, and a worker that fails.

use std::{io::Write, time::Duration};

use crate::{
    database::{Database, Settings},
    test_support::client::{connect, order_request, read_response},
};

const LISTENERS: &str = "SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND query LIKE 'LISTEN%'";

#[test]
fn listener_after_outage_reconnects() {
    let database = Database::new("listener");
    let _app = database.start_app(&Settings::default());
    database.wait_for(1, LISTENERS);

    database.allow_connections(false);
    database.close_connections();
    database.wait_for_log("notification listener failed");
    database.allow_connections(true);
    database.wait_for(1, LISTENERS);
}

#[test]
fn worker_failure_lets_requests_finish() {
    let database = Database::new("failure");
    let app = database.start_app(&Settings {
        mail: Duration::from_millis(500),
        ..Settings::default()
    });
    let request = order_request("tea", 1, "ada@example.org");
    let mut stream = connect(app.address).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    assert_eq!(read_response(&mut stream, || ()), (Some(201), false));

    // A second request is in flight while the worker fails to complete the first job.
    let (head, body) = request.split_at(request.len() - 1);
    stream.write_all(head.as_bytes()).unwrap();
    database.wait_for(
        1,
        "SELECT count(*) FROM graphile_worker._private_jobs WHERE locked_by IS NOT NULL",
    );
    database.execute("ALTER TABLE graphile_worker._private_jobs RENAME TO renamed");
    // The server stops accepting connections.
    while connect(app.address).is_ok() {
        std::thread::sleep(Duration::from_millis(10));
    }
    stream.write_all(body.as_bytes()).unwrap();
    assert_eq!(read_response(&mut stream, || ()).0, Some(503));

    let (status, output) = app.wait();
    assert_eq!(status.code(), Some(1));
    assert!(output.contains("0 unfinished"), "no report: {output}");
}

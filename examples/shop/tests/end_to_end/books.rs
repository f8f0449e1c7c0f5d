//! 200 concurrent users. Some disconnect midway, and some commits fail. Afterwards,
//! each order has one receipt, one row in the audit log, one document, and its checksum, and none of
//! these exists without an order.

use std::{
    collections::{BTreeMap, HashSet},
    time::{Duration, Instant},
};

use reqwest::StatusCode;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
};

use crate::{
    client::Client,
    failed_commit::{FAILING_BYTES, make_commits_fail},
    mail_server::Letter,
    running_shop::RunningShop,
};

const USERS: usize = 200;
/// Maximum number of uploads of one user.
const UPLOADS: usize = 12;
const TIME: Duration = Duration::from_secs(10);

/// How a user sends an upload.
#[derive(Clone, Copy)]
enum Upload {
    Complete,
    /// The commit fails.
    FailedCommit,
    /// Disconnects after half of the request: there is no order.
    HalfSent,
    /// Disconnects after the request, before or while the handler runs.
    Sent,
    /// Disconnects after another short request, while the handler runs.
    Running,
    /// Disconnects after another request that uses the same connection to the database: there may
    /// be an order.
    Queued,
    /// Disconnects on the first bytes of the response: there is an order.
    Acknowledged,
}

impl Upload {
    fn nth(number: usize) -> Self {
        match number % 8 {
            1 => Self::HalfSent,
            2 => Self::FailedCommit,
            3 => Self::Sent,
            5 => Self::Acknowledged,
            6 => Self::Running,
            7 => Self::Queued,
            _ => Self::Complete,
        }
    }
}

/// The results of uploads, as seen by users.
#[derive(Default)]
struct Results {
    /// The orders in complete responses.
    orders: Vec<i64>,
    /// Uploads without an order.
    failed_commits: usize,
    half_sent: usize,
    /// Uploads with or without an order.
    sent: usize,
    /// Uploads with an order.
    acknowledged: usize,
}

async fn run_user(mut client: Client, user: usize) -> Results {
    let email = format!("user-{user}@example.org");
    client.sign_up(&email).await;
    client.log_in(&email).await;
    let mut results = Results::default();
    let start = Instant::now();
    for number in 0..UPLOADS {
        if start.elapsed() > TIME {
            break;
        }
        // Larger than `FAILING_BYTES`.
        let document = vec![b'x'; 1_000 + (user * 31 + number * 977) % 40_000];
        match Upload::nth(user + number) {
            Upload::Complete => results.orders.push(client.order(&document).await),
            Upload::FailedCommit => {
                let response = client.upload(vec![b'x'; FAILING_BYTES]).await;
                assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
                results.failed_commits += 1;
            }
            Upload::HalfSent => {
                begin_upload(&client, &document, document.len() / 2).await;
                results.half_sent += 1;
            }
            Upload::Sent => {
                begin_upload(&client, &document, document.len()).await;
                results.sent += 1;
            }
            Upload::Running => {
                let _connection = begin_upload(&client, &document, document.len()).await;
                client.get_json("/").await;
                results.sent += 1;
            }
            Upload::Queued => {
                let _connection = begin_upload(&client, &document, document.len()).await;
                client.log_in(&email).await;
                results.sent += 1;
            }
            Upload::Acknowledged => {
                let mut connection = begin_upload(&client, &document, document.len()).await;
                let mut head = [0; 12];
                connection.read_exact(&mut head).await.unwrap();
                assert_eq!(&head, b"HTTP/1.1 201");
                results.acknowledged += 1;
            }
        }
    }
    let listed = client.get_json("/orders").await;
    let listed: HashSet<_> = listed
        .as_array()
        .unwrap()
        .iter()
        .map(|order| order["id"].as_i64())
        .collect();
    assert!(
        results
            .orders
            .iter()
            .all(|order| listed.contains(&Some(*order)))
    );
    if let Some(order) = results.orders.last() {
        let response = client.get(&format!("/orders/{order}")).await;
        assert_eq!(response.status(), StatusCode::OK);
    }
    results
}

/// Sends the first `bytes` of a document. Dropping the connection resets it.
async fn begin_upload(client: &Client, document: &[u8], bytes: usize) -> TcpStream {
    let mut connection = TcpStream::connect(client.address).await.unwrap();
    connection.set_zero_linger().unwrap();
    let head = format!(
        "POST /orders HTTP/1.1\r\nhost: shop\r\nauthorization: Bearer {}\r\n\
         content-length: {}\r\n\r\n",
        client.token,
        document.len(),
    );
    connection.write_all(head.as_bytes()).await.unwrap();
    connection.write_all(&document[..bytes]).await.unwrap();
    connection
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_users_leave_consistent_data() {
    let mut shop = RunningShop::start("books").await;
    make_commits_fail(&shop.database).await;
    let mut users = JoinSet::new();
    for user in 0..USERS {
        users.spawn(run_user(shop.client(), user));
    }
    let mut results = Results::default();
    for user in users.join_all().await {
        results.orders.extend(user.orders);
        results.failed_commits += user.failed_commits;
        results.half_sent += user.half_sent;
        results.sent += user.sent;
        results.acknowledged += user.acknowledged;
    }
    // Handlers of disconnected users may still run. A shutdown waits for them.
    let report = shop.stop().await;
    assert!(report.is_complete(), "{report}");

    let orders: BTreeMap<i64, String> = sqlx::query_as::<_, (i64, String)>(
        "SELECT orders.id, email FROM orders JOIN users ON users.id = orders.user",
    )
    .fetch_all(&shop.database)
    .await
    .unwrap()
    .into_iter()
    .collect();
    let sent = orders.len() - results.orders.len() - results.acknowledged;
    let cancelled = "SELECT count(*) FROM audit WHERE action = 'order' AND status IS NULL";
    println!(
        "orders: {} acknowledged, {} reset during the response, {sent} of {} reset before it",
        results.orders.len(),
        results.acknowledged,
        results.sent,
    );
    println!(
        "no orders: {} reset during the request, {} failed commits",
        results.half_sent, results.failed_commits,
    );
    println!("cancelled handlers: {}", shop.count(cancelled).await);
    println!("{report}");

    assert!(
        results
            .orders
            .iter()
            .all(|order| orders.contains_key(order))
    );
    assert!(
        results.half_sent > 0
            && results.failed_commits > 0
            && results.acknowledged > 0
            && results.sent >= sent
    );
    let receipts = orders.iter().map(|(order, email)| Letter {
        to: email.clone(),
        subject: format!("Order {order}"),
    });
    let welcomes = (0..USERS).map(|user| Letter {
        to: format!("user-{user}@example.org"),
        subject: "Welcome".to_owned(),
    });
    let mut expected: Vec<_> = receipts.chain(welcomes).collect();
    expected.sort();
    assert!(shop.mail.letters() == expected, "mails and orders differ");

    let mut audited: Vec<i64> =
        sqlx::query_scalar("SELECT order_id FROM audit WHERE action = 'order' AND status = 201")
            .fetch_all(&shop.database)
            .await
            .unwrap();
    audited.sort_unstable();
    assert!(
        audited.iter().eq(orders.keys()),
        "audit log and orders differ"
    );

    assert_eq!(shop.documents(), orders.len());
    let missing = "SELECT count(*) FROM orders WHERE checksum IS NULL";
    assert_eq!(shop.count(missing).await, 0);
}

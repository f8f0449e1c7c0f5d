//! 200 users at once, some of whom hang up in the middle, and some of whose commits fail: afterwards, each order has one receipt, one
//! row in the audit log, one document and its checksum, and there is none of these without an order.

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
    mail_server::Letter,
    refused_commit::{UNLUCKY_BYTES, make_some_commits_fail},
    running_shop::RunningShop,
};

const USERS: usize = 200;
/// Of each user, if it is not time that ends it.
const UPLOADS: usize = 12;
const TIME: Duration = Duration::from_secs(10);

/// What a user does with one upload.
#[derive(Clone, Copy)]
enum Upload {
    Whole,
    /// Its commit fails, and the user is told so.
    Unlucky,
    /// Hangs up when half of the request is sent: nothing was ordered.
    HalfSent,
    /// Hangs up when all of it is sent: the server may not have read it, and nothing was ordered; or the
    /// handler is at work.
    AllSent,
    /// Hangs up after another request, a short one: the handler is at work.
    AtWork,
    /// Hangs up after another request that stands in the same queue: the order may be placed.
    Later,
    /// Hangs up on the first bytes of the answer: the order is placed.
    Answered,
}

impl Upload {
    fn nth(number: usize) -> Self {
        match number % 8 {
            1 => Self::HalfSent,
            2 => Self::Unlucky,
            3 => Self::AllSent,
            5 => Self::Answered,
            6 => Self::AtWork,
            7 => Self::Later,
            _ => Self::Whole,
        }
    }
}

/// What the users know: the number of each order that they were told, and how many other uploads there
/// were.
#[derive(Default)]
struct Told {
    orders: Vec<i64>,
    /// Of which there is no order.
    unlucky: usize,
    half_sent: usize,
    /// Of which there may be an order.
    sent: usize,
    /// Of which there is an order.
    answered: usize,
}

async fn be_a_user(mut client: Client, user: usize) -> Told {
    let email = format!("user-{user}@example.org");
    client.sign_up(&email).await;
    client.log_in(&email).await;
    let mut told = Told::default();
    let start = Instant::now();
    for number in 0..UPLOADS {
        if start.elapsed() > TIME {
            break;
        }
        // Larger than one that is unlucky.
        let document = vec![b'x'; 1_000 + (user * 31 + number * 977) % 40_000];
        match Upload::nth(user + number) {
            Upload::Whole => told.orders.push(client.order(&document).await),
            Upload::Unlucky => {
                let response = client.upload(vec![b'x'; UNLUCKY_BYTES]).await;
                assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
                told.unlucky += 1;
            }
            Upload::HalfSent => {
                begin_upload(&client, &document, document.len() / 2).await;
                told.half_sent += 1;
            }
            Upload::AllSent => {
                begin_upload(&client, &document, document.len()).await;
                told.sent += 1;
            }
            Upload::AtWork => {
                let _connection = begin_upload(&client, &document, document.len()).await;
                client.get_json("/").await;
                told.sent += 1;
            }
            Upload::Later => {
                let _connection = begin_upload(&client, &document, document.len()).await;
                client.log_in(&email).await;
                told.sent += 1;
            }
            Upload::Answered => {
                let mut connection = begin_upload(&client, &document, document.len()).await;
                let mut answer = [0; 12];
                connection.read_exact(&mut answer).await.unwrap();
                assert_eq!(&answer, b"HTTP/1.1 201");
                told.answered += 1;
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
        told.orders
            .iter()
            .all(|order| listed.contains(&Some(*order)))
    );
    if let Some(order) = told.orders.last() {
        let response = client.get(&format!("/orders/{order}")).await;
        assert_eq!(response.status(), StatusCode::OK);
    }
    told
}

/// Sends so many bytes of a document, over a connection that is reset when it is dropped.
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
async fn they_balance_after_200_users_at_once() {
    let mut shop = RunningShop::start("books").await;
    make_some_commits_fail(&shop.database).await;
    let mut users = JoinSet::new();
    for user in 0..USERS {
        users.spawn(be_a_user(shop.client(), user));
    }
    let mut told = Told::default();
    for user in users.join_all().await {
        told.orders.extend(user.orders);
        told.unlucky += user.unlucky;
        told.half_sent += user.half_sent;
        told.sent += user.sent;
        told.answered += user.answered;
    }
    // Requests of those who have hung up may be at work: a shutdown waits for them.
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
    let of_sent = orders.len() - told.orders.len() - told.answered;
    let cut = "SELECT count(*) FROM audit WHERE action = 'order' AND status IS NULL";
    println!(
        "orders: {} told, {} reset in the answer, {of_sent} of {} reset before it",
        told.orders.len(),
        told.answered,
        told.sent,
    );
    println!(
        "no orders: {} reset in the request, {} commits that failed",
        told.half_sent, told.unlucky,
    );
    println!("handlers cut off: {}", shop.count(cut).await);
    println!("{report}");

    assert!(told.orders.iter().all(|order| orders.contains_key(order)));
    assert!(told.half_sent > 0 && told.unlucky > 0 && told.answered > 0 && told.sent >= of_sent);
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
    assert!(
        shop.mail.letters() == expected,
        "a mail too many, or too few"
    );

    let mut audited: Vec<i64> =
        sqlx::query_scalar("SELECT order_id FROM audit WHERE action = 'order' AND status = 201")
            .fetch_all(&shop.database)
            .await
            .unwrap();
    audited.sort_unstable();
    assert!(
        audited.iter().eq(orders.keys()),
        "a row too many, or too few"
    );

    assert_eq!(shop.documents(), orders.len());
    let unsummed = "SELECT count(*) FROM orders WHERE checksum IS NULL";
    assert_eq!(shop.count(unsummed).await, 0);
}

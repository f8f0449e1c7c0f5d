//! A page that shows what is deferred: `cargo run --example live --features live`, and open the
//! address that it prints.
//!
//! The app sends itself varied traffic, for as long as it runs: mails, an index that is down now and
//! then, a job that panics, clients that leave, and an export that takes a while. With a number, `cargo run
//! --example live --features live -- 50`, it ends after so many requests. `ADDRESS` says where it listens;
//! 127.0.0.1:3000 if nothing does.

use std::{convert::Infallible, env, error::Error, fmt, io, net::SocketAddr, time::Duration};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::Path,
    http::StatusCode,
    response::{IntoResponse, Redirect},
    routing::{get, post},
};
use axum_defer::{DeferLayer, before_response, defer, defer_blocking, live::Live};
use futures_util::stream::{self, StreamExt};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::oneshot,
    task::JoinSet,
    time::sleep,
};

const PAGE: &str = "/admin/deferred";

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let requests = env::args().nth(1).map(|number| number.parse());
    let requests: Option<u64> = requests.transpose()?;
    let address = env::var("ADDRESS").unwrap_or_else(|_| "127.0.0.1:3000".to_owned());
    // The panic of a callback is on the page.
    std::panic::set_hook(Box::new(|_| {}));

    let live = Live::new();
    let layer = DeferLayer::new()
        .observer(live.clone())
        .timeout(Duration::from_secs(60));
    let app = Router::new()
        .route("/orders/{id}", post(order))
        .route("/sign-up/{name}", post(sign_up))
        .route("/payments/{id}", post(payment))
        .route("/photos/{id}", post(photo))
        .route("/reports/{id}", get(report))
        .route("/export", post(export))
        .route("/", get(Redirect::to(PAGE)))
        .layer(layer)
        .nest("/admin/deferred", live.only_loopback());

    let listener = TcpListener::bind(&address).await?;
    let address = listener.local_addr()?;
    println!("http://{address}{PAGE}");

    let (stop, stopped) = oneshot::channel::<()>();
    let traffic = tokio::spawn(async move {
        traffic(address, requests).await;
        drop(stop);
    });
    let report = axum_defer::serve(
        listener,
        app.into_make_service_with_connect_info::<SocketAddr>(),
    )
    .with_graceful_shutdown(async {
        tokio::select! {
            _ = stopped => {}
            _ = tokio::signal::ctrl_c() => {}
        }
    })
    .drain_timeout(Duration::from_secs(30))
    .await;
    traffic.abort();
    println!("{report}");
    Ok(())
}

// ── The app ─────────────────────────────────────────────────────────────────────────────────────

async fn order(Path(id): Path<u64>) -> (StatusCode, &'static str) {
    sleep(millis(5 + id % 7 * 4)).await;
    defer(work(60 + id % 5 * 45)).name("receipt mail");
    defer(async move {
        sleep(millis(15)).await;
        if id % 6 == 1 {
            Err(IndexDown(timed_out()))
        } else {
            Ok(())
        }
    })
    .name("search index");
    defer(work(4)).name("audit").always();
    if id % 9 == 4 {
        return (StatusCode::CONFLICT, "sold out");
    }
    (StatusCode::CREATED, "thank you")
}

async fn sign_up(Path(name): Path<String>) -> &'static str {
    let mail = defer(work(90)).name("welcome mail");
    if name == "bob" {
        mail.cancel();
    }
    // A name is text, whatever is in it.
    defer(work(10)).name(format!("<b>hello</b> {name}"));
    "welcome"
}

async fn payment(Path(id): Path<u64>) -> &'static str {
    before_response(async move {
        sleep(millis(25)).await;
        if id % 8 == 5 {
            Err("the database is gone")
        } else {
            Ok(())
        }
    })
    .name("commit");
    defer(work(30)).name("receipt mail");
    "paid"
}

async fn photo(Path(id): Path<u64>) -> StatusCode {
    defer_blocking(|| std::thread::sleep(millis(40))).name("thumbnail");
    defer(async move {
        sleep(millis(30)).await;
        assert!(id % 7 != 2, "no face in photo {id}");
    })
    .name("faces");
    if id % 11 == 3 {
        defer(work(900))
            .name("copyright check")
            .timeout(millis(250));
    }
    StatusCode::ACCEPTED
}

/// A body that takes a while.
async fn report(Path(id): Path<u64>) -> impl IntoResponse {
    sleep(millis(20)).await;
    defer(work(25));
    let rows = stream::iter(0..8).then(move |row| async move {
        sleep(millis(10 + id % 4 * 8)).await;
        Ok::<_, Infallible>(Bytes::from(format!("row {row}\n")))
    });
    Body::from_stream(rows)
}

async fn export() -> StatusCode {
    defer(work(20_000)).name("nightly export");
    defer(work(50)).name("export mail");
    StatusCode::ACCEPTED
}

/// Begins when it is its turn.
async fn work(lasts: u64) {
    sleep(millis(lasts)).await;
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn timed_out() -> io::Error {
    io::Error::new(
        io::ErrorKind::TimedOut,
        "no answer from 10.0.0.7:9200 within 15 ms",
    )
}

#[derive(Debug)]
struct IndexDown(io::Error);

impl fmt::Display for IndexDown {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("the order could not be indexed")
    }
}

impl Error for IndexDown {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.0)
    }
}

// ── Its traffic ─────────────────────────────────────────────────────────────────────────────────

async fn traffic(address: SocketAddr, requests: Option<u64>) {
    let mut clients = JoinSet::new();
    for id in 0..requests.unwrap_or(u64::MAX) {
        let (request, leaves) = match id % 8 {
            1 => (
                format!("POST /sign-up/{}", ["ada", "bob", "eve"][id as usize % 3]),
                false,
            ),
            3 => (format!("POST /payments/{id}"), false),
            4 => (format!("POST /photos/{id}"), false),
            6 => (format!("GET /reports/{id}"), id % 3 == 0),
            // Those of an example that ends would be waited for.
            7 if id % 80 == 7 && requests.is_none() => ("POST /export".to_owned(), false),
            _ => (format!("POST /orders/{id}"), false),
        };
        clients.spawn(send(address, request, leaves));
        while clients.len() > 32 || clients.try_join_next().is_some() {
            if clients.len() > 32 {
                clients.join_next().await;
            }
        }
        sleep(millis(20 + id * 37 % 200)).await;
    }
    while clients.join_next().await.is_some() {}
}

async fn send(address: SocketAddr, request: String, leaves: bool) -> io::Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    let head = format!(
        "{request} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await?;
    if leaves {
        let mut beginning = [0; 200];
        stream.read_exact(&mut beginning).await?;
        return Ok(());
    }
    let mut response = Vec::new();
    stream.read_to_end(&mut response).await?;
    Ok(())
}

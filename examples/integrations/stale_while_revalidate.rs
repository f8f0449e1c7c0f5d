//! Laravel's `Cache::flexible`, on moka: `cargo run --example stale_while_revalidate`.
//!
//! Who asks for a value that is stale gets it at once, and it is refreshed after the response: once,
//! however many ask meanwhile. Only who asks for one that is gone waits.

use std::{
    error::Error,
    sync::atomic::{AtomicU32, Ordering::SeqCst},
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Request, State},
    routing::get,
};
use axum_defer::{DeferLayer, defer};
use http_body_util::BodyExt;
use moka::future::Cache;
use tokio::sync::Semaphore;
use tower::ServiceExt;

/// So that this example need not wait; a minute, in earnest.
const FRESH: Duration = Duration::ZERO;
const KEPT: Duration = Duration::from_secs(600);

#[derive(Clone)]
struct Rate {
    text: String,
    fetched: Instant,
}

#[derive(Clone)]
struct Rates {
    cache: Cache<&'static str, Rate>,
}

impl Rates {
    async fn get(&self, currency: &'static str) -> String {
        // Of those who find nothing, one asks the bank, and the others wait for it.
        let rate = self.cache.get_with(currency, ask_the_bank(currency)).await;
        if rate.fetched.elapsed() >= FRESH {
            let cache = self.cache.clone();
            defer(async move {
                let rate = ask_the_bank(currency).await;
                cache.insert(currency, rate).await;
            })
            // Each currency has a refresh of its own.
            .name(format!("refresh {currency}"))
            .unique();
        }
        rate.text
    }
}

static ASKED: AtomicU32 = AtomicU32::new(0);
/// How often the bank answers, which is slow.
static ANSWERS: Semaphore = Semaphore::const_new(1);

async fn ask_the_bank(currency: &str) -> Rate {
    let number = ASKED.fetch_add(1, SeqCst) + 1;
    let answer = ANSWERS.acquire().await;
    answer.expect("it is never closed").forget();
    Rate {
        text: format!("1 EUR = 1.{number:02} {currency}"),
        fetched: Instant::now(),
    }
}

async fn dollars(State(rates): State<Rates>) -> String {
    rates.get("USD").await
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let layer = DeferLayer::new();
    let deferred = layer.handle();
    let cache = Cache::builder().time_to_live(KEPT).build();
    let app = Router::new()
        .route("/usd", get(dollars))
        .with_state(Rates { cache })
        .layer(layer);

    // The bank answers once, so this is all that anybody can get until it answers again.
    for _ in 0..100 {
        assert_eq!(ask(&app).await?, "1 EUR = 1.01 USD");
    }
    println!("100 asked, and had the old value at once");
    ANSWERS.add_permits(1);
    deferred.wait_idle().await;
    assert_eq!(ASKED.load(SeqCst), 2);
    println!("the bank was asked a second time, and not more");

    assert_eq!(ask(&app).await?, "1 EUR = 1.02 USD");
    println!("the next one has the new value");
    ANSWERS.add_permits(1);
    deferred.wait_idle().await;
    Ok(())
}

async fn ask(app: &Router) -> Result<Bytes, Box<dyn Error>> {
    let request = Request::get("/usd").body(Body::empty())?;
    let response = app.clone().oneshot(request).await?;
    Ok(response.into_body().collect().await?.to_bytes())
}

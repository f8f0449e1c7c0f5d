//! Laravel's `Cache::flexible` with moka: `cargo run --example stale_while_revalidate`.
//!
//! A request for a stale value gets it immediately, and one refresh runs after the response,
//! regardless of the number of requests. Only requests for a missing value wait.

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

/// Zero, so that this example does not wait. A real app uses a minute, for example.
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
        // If the value is missing, one request fetches it, and the others wait.
        let rate = self.cache.get_with(currency, fetch_rate(currency)).await;
        if rate.fetched.elapsed() >= FRESH {
            let cache = self.cache.clone();
            defer(async move {
                let rate = fetch_rate(currency).await;
                cache.insert(currency, rate).await;
            })
            // One refresh per currency.
            .name(format!("refresh {currency}"))
            .unique();
        }
        rate.text
    }
}

static REQUESTS: AtomicU32 = AtomicU32::new(0);
/// Number of responses that the slow bank sends.
static RESPONSES: Semaphore = Semaphore::const_new(1);

async fn fetch_rate(currency: &str) -> Rate {
    let number = REQUESTS.fetch_add(1, SeqCst) + 1;
    let permit = RESPONSES.acquire().await;
    permit.expect("never closed").forget();
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

    // The bank has responded once, so all requests get this value until it responds again.
    for _ in 0..100 {
        assert_eq!(fetch(&app).await?, "1 EUR = 1.01 USD");
    }
    println!("100 requests got the stale value immediately");
    // The refreshes of the other requests end as duplicates while the first one runs.
    while deferred.pending() + deferred.running() > 1 {
        tokio::task::yield_now().await;
    }
    RESPONSES.add_permits(1);
    deferred.wait_idle().await;
    assert_eq!(REQUESTS.load(SeqCst), 2);
    println!("one refresh ran");

    assert_eq!(fetch(&app).await?, "1 EUR = 1.02 USD");
    println!("the next request got the new value");
    RESPONSES.add_permits(1);
    deferred.wait_idle().await;
    Ok(())
}

async fn fetch(app: &Router) -> Result<Bytes, Box<dyn Error>> {
    let request = Request::get("/usd").body(Body::empty())?;
    let response = app.clone().oneshot(request).await?;
    Ok(response.into_body().collect().await?.to_bytes())
}

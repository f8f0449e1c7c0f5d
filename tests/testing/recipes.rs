//! The recipes of `docs/recipes.md`.
#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::HashMap,
    convert::Infallible,
    fs, mem,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{MatchedPath, Path, State},
    http::{HeaderMap, Request, StatusCode},
    middleware::{Next, from_fn, from_fn_with_state},
    response::Response,
    routing::{get, post, put},
};
use axum_defer::{
    BoxError, Completion, DeferLayer, Delivery, before_response, defer, defer_blocking,
    testing::{Recorder, completion},
};
use http_body_util::BodyExt;
use ring::hmac;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::{Semaphore, oneshot},
};
use tower::ServiceExt;

use crate::support::gate::{Arrivals, Gate};

fn observed() -> (DeferLayer, Recorder) {
    let recorder = Recorder::new();
    (DeferLayer::new().observer(recorder.clone()), recorder)
}

fn request(method: &str, path: &str, body: &str) -> Request<Body> {
    let request = Request::builder().method(method).uri(path);
    request.body(Body::from(body.to_owned())).unwrap()
}

/// Sends a request, and leaves the body of the response unread.
async fn send(app: &Router, method: &str, path: &str, body: &str) -> Response {
    let request = request(method, path, body);
    app.clone().oneshot(request).await.unwrap()
}

/// Sends a request, and reads the response to its end.
async fn read(app: &Router, method: &str, path: &str, body: &str) -> (StatusCode, String) {
    let response = send(app, method, path, body).await;
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

/// Yields until the condition holds.
async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..10_000 {
        if holds() {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("it never happened: {what}");
}

async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

// Replacing `tokio::spawn`

#[tokio::test]
async fn failed_response_runs_only_always() {
    async fn sign_up(name: String) -> Result<&'static str, StatusCode> {
        defer(async {}).name("count").always();
        if name == "taken" {
            return Err(StatusCode::CONFLICT);
        }
        defer(async {}).name("mail");
        defer(async {}).name("announce");
        Ok("welcome")
    }
    let (layer, recorder) = observed();
    let deferred = layer.handle();
    let app: Router = Router::new().route("/", post(sign_up)).layer(layer);

    read(&app, "POST", "/", "taken").await;
    deferred.wait_idle().await;
    recorder.assert_succeeded(["count"]);

    read(&app, "POST", "/", "ada").await;
    deferred.wait_idle().await;
    recorder.assert_succeeded(["count", "count", "mail", "announce"]);
}

#[tokio::test]
async fn mechanical_replacement_is_skipped() {
    let (layer, recorder) = observed();
    let deferred = layer.handle();
    let handler = || async {
        defer(async {}).name("log the attempt");
        StatusCode::UNAUTHORIZED
    };
    let app: Router = Router::new().route("/", post(handler)).layer(layer);

    read(&app, "POST", "/", "").await;
    deferred.wait_idle().await;

    recorder.assert_skipped(["log the attempt"]);
}

// Request data in callbacks

tokio::task_local! {
    static TENANT: String;
}

#[tokio::test]
async fn wrapped_callback_sees_task_local() {
    let (layer, recorder) = observed();
    let layer = layer.wrap(|callback| {
        let tenant = TENANT.try_with(String::clone).unwrap_or_default();
        TENANT.scope(tenant, callback)
    });
    let deferred = layer.handle();
    let handler = || async {
        defer(async { assert_eq!(TENANT.get(), "acme") }).name("tenant");
    };
    let app: Router = Router::new()
        .route("/", get(handler))
        .layer(from_fn(|request: Request<Body>, next: Next| {
            TENANT.scope("acme".to_owned(), next.run(request))
        }))
        .layer(layer);

    read(&app, "GET", "/", "").await;
    deferred.wait_idle().await;

    recorder.assert_succeeded(["tenant"]);
}

// Refreshing a cache

#[derive(Clone)]
struct Rates {
    cache: Arc<RwLock<(String, bool)>>,
    source: Gate,
    fails: Arc<AtomicBool>,
}

async fn rates(State(rates): State<Rates>) -> String {
    let (value, is_stale) = rates.cache.read().unwrap().clone();
    if is_stale {
        defer(async move {
            rates.source.pass().await;
            if rates.fails.load(Ordering::SeqCst) {
                return Err(BoxError::from("the source is down"));
            }
            *rates.cache.write().unwrap() = ("new".to_owned(), false);
            Ok(())
        })
        .name("refresh")
        .timeout(Duration::from_secs(10))
        .unique();
    }
    value
}

fn rates_app() -> (Router, DeferLayer, Recorder, Rates, Arrivals) {
    let (layer, recorder) = observed();
    let (source, arrivals) = Gate::new();
    let state = Rates {
        cache: Arc::new(RwLock::new(("old".to_owned(), true))),
        source,
        fails: Arc::default(),
    };
    let app = Router::new()
        .route("/rates", get(rates))
        .with_state(state.clone())
        .layer(layer.clone());
    (app, layer, recorder, state, arrivals)
}

#[tokio::test]
async fn stale_value_starts_one_refresh() {
    let (app, layer, recorder, state, mut arrivals) = rates_app();
    assert_eq!(read(&app, "GET", "/rates", "").await.1, "old");
    arrivals.recv().await.unwrap();
    for _ in 0..20 {
        assert_eq!(read(&app, "GET", "/rates", "").await.1, "old");
    }
    until("duplicates", || recorder.deduplicated().len() == 20).await;

    state.source.open();
    layer.handle().wait_idle().await;

    recorder.assert_succeeded(["refresh"]);
    assert_eq!(read(&app, "GET", "/rates", "").await.1, "new");
}

#[tokio::test]
async fn failed_refresh_is_tried_again() {
    let (app, layer, recorder, state, _arrivals) = rates_app();
    state.source.open();
    state.fails.store(true, Ordering::SeqCst);
    read(&app, "GET", "/rates", "").await;
    layer.handle().wait_idle().await;
    recorder.assert_failed(["refresh"]);

    state.fails.store(false, Ordering::SeqCst);
    read(&app, "GET", "/rates", "").await;
    layer.handle().wait_idle().await;
    recorder.assert_succeeded(["refresh"]);
}

// Invalidating a cache

#[derive(Clone, Default)]
struct Profile {
    database: Arc<Mutex<String>>,
    cache: Arc<Mutex<Option<String>>>,
    cache_is_down: Arc<AtomicBool>,
}

impl Profile {
    fn invalidate(&self) -> Result<(), BoxError> {
        if self.cache_is_down.load(Ordering::SeqCst) {
            return Err("the cache is down".into());
        }
        *self.cache.lock().unwrap() = None;
        Ok(())
    }
}

async fn profile(State(profile): State<Profile>) -> String {
    let mut cached = profile.cache.lock().unwrap();
    let value = cached.get_or_insert_with(|| profile.database.lock().unwrap().clone());
    value.clone()
}

/// An app that invalidates before the response at `/before`, and after it at `/after`.
fn profile_app(layer: DeferLayer) -> (Router, Profile) {
    let state = Profile::default();
    let before = |State(profile): State<Profile>, name: String| async move {
        *profile.database.lock().unwrap() = name;
        before_response(async move { profile.invalidate() })
            .name("invalidate")
            .always();
        "renamed"
    };
    let after = |State(profile): State<Profile>, name: String| async move {
        *profile.database.lock().unwrap() = name;
        defer(async move { profile.invalidate() }).always();
        "renamed"
    };
    let app = Router::new()
        .route("/", get(profile))
        .route("/before", put(before))
        .route("/after", put(after))
        .with_state(state.clone())
        .layer(layer);
    (app, state)
}

#[tokio::test]
async fn value_is_new_when_the_response_arrives() {
    let (app, _) = profile_app(DeferLayer::new());
    assert_eq!(read(&app, "GET", "/", "").await.1, "");
    let _unread = send(&app, "PUT", "/before", "ada").await;
    assert_eq!(read(&app, "GET", "/", "").await.1, "ada");
}

#[tokio::test]
async fn deferred_invalidation_shows_old_value() {
    let layer = DeferLayer::new();
    let deferred = layer.handle();
    let (app, _) = profile_app(layer);
    assert_eq!(read(&app, "GET", "/", "").await.1, "");
    let unread = send(&app, "PUT", "/after", "ada").await;
    assert_eq!(read(&app, "GET", "/", "").await.1, "");
    drop(unread);
    deferred.wait_idle().await;
    assert_eq!(read(&app, "GET", "/", "").await.1, "ada");
}

#[tokio::test]
async fn failed_invalidation_responds_with_503() {
    let (app, state) = profile_app(DeferLayer::new());
    state.cache_is_down.store(true, Ordering::SeqCst);
    let (status, _) = read(&app, "PUT", "/before", "ada").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
}

// Batching and debouncing

/// Stores each batch. The first `failures` insertions fail.
#[derive(Default)]
struct Database {
    batches: Mutex<Vec<Vec<String>>>,
    failures: AtomicU64,
}

impl Database {
    async fn insert(&self, batch: &[String]) -> Result<(), std::io::Error> {
        tokio::time::sleep(Duration::from_millis(50)).await;
        if self.failures.load(Ordering::SeqCst) > 0 {
            self.failures.fetch_sub(1, Ordering::SeqCst);
            return Err(std::io::Error::other("the database is down"));
        }
        self.batches.lock().unwrap().push(batch.to_vec());
        Ok(())
    }

    fn rows(&self) -> Vec<String> {
        self.batches.lock().unwrap().concat()
    }
}

#[derive(Default)]
struct Views {
    buffer: Mutex<Vec<String>>,
    database: Database,
}

impl Views {
    fn add(&self, rows: Vec<String>) {
        let mut buffer = self.buffer.lock().unwrap_or_else(PoisonError::into_inner);
        buffer.extend(rows);
    }

    fn take(&self) -> Vec<String> {
        mem::take(&mut *self.buffer.lock().unwrap_or_else(PoisonError::into_inner))
    }

    async fn flush(self: Arc<Self>) -> Result<(), std::io::Error> {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let batch = self.take();
        if batch.is_empty() {
            return Ok(());
        }
        let result = self.database.insert(&batch).await;
        if result.is_err() {
            self.add(batch); // for the next flush
        }
        result
    }
}

async fn view(State(views): State<Arc<Views>>, page: String) {
    views.add(vec![page]);
    defer(views.flush())
        .name("write the views")
        .always()
        .coalesce();
}

fn views_app(layer: DeferLayer) -> (Router, Arc<Views>) {
    let views = Arc::new(Views::default());
    let app = Router::new()
        .route("/view", post(view))
        .with_state(views.clone())
        .layer(layer);
    (app, views)
}

#[tokio::test(start_paused = true)]
async fn rows_of_a_pause_are_one_batch() {
    let (layer, recorder) = observed();
    let deferred = layer.handle();
    let (app, views) = views_app(layer);
    for number in 0..50 {
        read(&app, "POST", "/view", &number.to_string()).await;
    }
    deferred.wait_idle().await;

    let expected: Vec<_> = (0..50).map(|number| number.to_string()).collect();
    assert_eq!(*views.database.batches.lock().unwrap(), [expected]);
    assert_eq!(recorder.succeeded().len(), 2);
    assert_eq!(recorder.deduplicated().len(), 48);
}

#[tokio::test(start_paused = true)]
async fn rows_between_flushes_are_not_lost() {
    let layer = DeferLayer::new();
    let deferred = layer.handle();
    let (app, views) = views_app(layer);
    // Steps of 7 ms meet each phase of a flush.
    for number in 0..200 {
        read(&app, "POST", "/view", &number.to_string()).await;
        tokio::time::sleep(Duration::from_millis(7)).await;
    }
    deferred.wait_idle().await;
    assert_eq!(views.database.rows().len(), 200);
    let batches = views.database.batches.lock().unwrap().len();
    assert!(batches <= 20, "{batches} batches");
}

#[tokio::test(start_paused = true)]
async fn failed_insert_keeps_its_rows() {
    let (layer, recorder) = observed();
    let deferred = layer.handle();
    let (app, views) = views_app(layer);
    views.database.failures.store(1, Ordering::SeqCst);
    read(&app, "POST", "/view", "a").await;
    deferred.wait_idle().await;
    recorder.assert_failed(["write the views"]);

    read(&app, "POST", "/view", "b").await;
    deferred.wait_idle().await;
    assert_eq!(views.database.rows(), ["a", "b"]);
}

#[tokio::test(start_paused = true)]
async fn drain_writes_the_last_rows() {
    let layer = DeferLayer::new();
    let deferred = layer.handle();
    let (app, views) = views_app(layer);
    read(&app, "POST", "/view", "first").await;
    // The first flush has taken its rows when the last request arrives.
    until("the pause", || deferred.running() == 1).await;
    tokio::time::sleep(Duration::from_millis(125)).await;
    assert!(views.take().is_empty());
    read(&app, "POST", "/view", "last").await;

    let report = deferred.drain(Duration::from_secs(20)).await;

    assert!(report.is_complete(), "{report}");
    assert_eq!(views.database.rows(), ["first", "last"]);
}

#[cfg(feature = "serve")]
#[tokio::test]
async fn graceful_shutdown_writes_last_rows() {
    let (app, views) = views_app(DeferLayer::new());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let server = axum_defer::serve(listener, app).with_graceful_shutdown(async {
        let _ = stopped.await;
    });
    let server = tokio::spawn(server.into_future());

    let mut client = tokio::net::TcpStream::connect(address).await.unwrap();
    let head = "POST /view HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 4\r\n\r\n";
    client.write_all(head.as_bytes()).await.unwrap();
    client.write_all(b"page").await.unwrap();
    let mut response = String::new();
    client.read_to_string(&mut response).await.unwrap();
    assert!(response.starts_with("HTTP/1.1 200"), "{response}");
    stop.send(()).unwrap();
    let report = server.await.unwrap().unwrap();

    assert!(report.is_complete(), "{report}");
    assert_eq!(views.database.rows(), ["page"]);
}

// A limit per tenant

struct TenantLimits {
    permits: usize,
    tenants: Mutex<HashMap<String, Arc<Semaphore>>>,
}

impl TenantLimits {
    fn of(&self, tenant: &str) -> Arc<Semaphore> {
        let mut tenants = self.tenants.lock().unwrap_or_else(PoisonError::into_inner);
        let semaphore = || Arc::new(Semaphore::new(self.permits));
        tenants
            .entry(tenant.to_owned())
            .or_insert_with(semaphore)
            .clone()
    }
}

#[derive(Clone)]
struct Exports {
    limits: Arc<TenantLimits>,
    running: Arc<Mutex<Vec<String>>>,
    gate: Gate,
}

async fn start_export(State(exports): State<Exports>, Path(tenant): Path<String>) {
    let semaphore = exports.limits.of(&tenant);
    defer(async move {
        let _permit = semaphore.acquire().await?;
        exports.running.lock().unwrap().push(tenant);
        exports.gate.pass().await;
        Ok::<_, BoxError>(())
    })
    .name("export");
}

#[tokio::test]
async fn tenant_at_its_limit_blocks_no_other() {
    let (layer, recorder) = observed();
    let deferred = layer.handle();
    let (gate, _arrivals) = Gate::new();
    let state = Exports {
        limits: Arc::new(TenantLimits {
            permits: 2,
            tenants: Mutex::default(),
        }),
        running: Arc::default(),
        gate,
    };
    let app: Router = Router::new()
        .route("/tenants/{tenant}/exports", post(start_export))
        .with_state(state.clone())
        .layer(layer);
    for tenant in ["a", "a", "a", "a", "b"] {
        read(&app, "POST", &format!("/tenants/{tenant}/exports"), "").await;
    }
    settle().await;
    let mut running = state.running.lock().unwrap().clone();
    running.sort();
    assert_eq!(running, ["a", "a", "b"]);

    state.gate.open();
    deferred.wait_idle().await;
    recorder.assert_succeeded(["export"; 5]);
}

// Retrying

async fn retry<T, E, F>(attempts: u32, mut attempt: impl FnMut() -> F) -> Result<T, E>
where
    F: Future<Output = Result<T, E>>,
{
    let mut pause = Duration::from_millis(200);
    for _ in 1..attempts {
        if let Ok(output) = attempt().await {
            return Ok(output);
        }
        tokio::time::sleep(pause).await;
        pause *= 2;
    }
    attempt().await
}

/// Defers a mail to a server that refuses the first attempts. Returns the number of attempts.
async fn attempts_of_a_mail(refused: u64) -> (u64, Recorder) {
    let (layer, recorder) = observed();
    let deferred = layer.handle();
    let attempts = Arc::new(AtomicU64::new(0));
    let counted = attempts.clone();
    let handler = move || async move {
        let send_mail = move || {
            let is_refused = counted.fetch_add(1, Ordering::SeqCst) < refused;
            async move {
                match is_refused {
                    true => Err("greylisted"),
                    false => Ok(()),
                }
            }
        };
        defer(async move { retry(3, send_mail).await })
            .name("mail")
            .timeout(Duration::from_secs(10));
    };
    let app: Router = Router::new().route("/", post(handler)).layer(layer);
    read(&app, "POST", "/", "").await;
    deferred.wait_idle().await;
    (attempts.load(Ordering::SeqCst), recorder)
}

#[tokio::test(start_paused = true)]
async fn retry_succeeds_on_third_attempt() {
    let (attempts, recorder) = attempts_of_a_mail(2).await;
    assert_eq!(attempts, 3);
    recorder.assert_succeeded(["mail"]);
}

#[tokio::test(start_paused = true)]
async fn last_failed_attempt_is_reported() {
    let (attempts, recorder) = attempts_of_a_mail(u64::MAX).await;
    assert_eq!(attempts, 3);
    assert_eq!(recorder.failure("mail").unwrap(), "error: greylisted");
}

// Signed webhooks

/// Returns the value of the signature header: `t=1700000000,v1=0a1b..`.
fn sign(key: &hmac::Key, timestamp: u64, body: &[u8]) -> String {
    let mut context = hmac::Context::with_key(key);
    context.update(timestamp.to_string().as_bytes());
    context.update(b".");
    context.update(body);
    let tag = context.sign();
    let hex = tag.as_ref().iter().map(|byte| format!("{byte:02x}"));
    format!("t={timestamp},v1={}", hex.collect::<String>())
}

async fn send_webhook(client: Client, key: hmac::Key, order: u32) -> Result<(), BoxError> {
    let body = format!(r#"{{"event":"order.placed","order":{order}}}"#);
    let timestamp = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let signature = sign(&key, timestamp, body.as_bytes());
    let attempt = || async {
        let request = Request::post("/webhooks")
            .header("webhook-id", format!("order-{order}"))
            .header("webhook-signature", &signature)
            .body(Body::from(body.clone()))?;
        let status = client.send(request).await?.status();
        if !status.is_success() {
            return Err(format!("the receiver responded with {status}").into());
        }
        Ok::<_, BoxError>(())
    };
    retry(3, attempt).await
}

async fn place_order(State((client, key)): State<(Client, hmac::Key)>) -> StatusCode {
    let order = 7;
    defer(send_webhook(client, key, order)).name("webhook");
    StatusCode::CREATED
}

/// A client of the receiver, without a network.
#[derive(Clone)]
struct Client(Router);

impl Client {
    async fn send(&self, request: Request<Body>) -> Result<Response, Infallible> {
        self.0.clone().oneshot(request).await
    }
}

#[derive(Clone)]
struct Receiver {
    key: hmac::Key,
    unavailable: Arc<AtomicU64>,
    accepted: Arc<Mutex<Vec<(String, Bytes)>>>,
}

async fn receive(State(receiver): State<Receiver>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let header = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let signature = header("webhook-signature").unwrap_or_default();
    let Some((timestamp, tag)) = signature
        .strip_prefix("t=")
        .and_then(|signature| signature.split_once(",v1="))
    else {
        return StatusCode::BAD_REQUEST;
    };
    let digits = tag.as_bytes().chunks(2);
    let tag: Option<Vec<u8>> = digits
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect();
    let signed = [timestamp.as_bytes(), b".", &body].concat();
    if hmac::verify(&receiver.key, &signed, &tag.unwrap_or_default()).is_err() {
        return StatusCode::UNAUTHORIZED;
    }
    if receiver.unavailable.load(Ordering::SeqCst) > 0 {
        receiver.unavailable.fetch_sub(1, Ordering::SeqCst);
        return StatusCode::SERVICE_UNAVAILABLE;
    }
    let id = header("webhook-id").unwrap_or_default().to_owned();
    receiver.accepted.lock().unwrap().push((id, body));
    StatusCode::OK
}

/// Places an order whose receiver is unavailable at first, and verifies with `key`.
async fn order_with_webhook(key: &[u8], unavailable: u64) -> (Receiver, Recorder) {
    let receiver = Receiver {
        key: hmac::Key::new(hmac::HMAC_SHA256, key),
        unavailable: Arc::new(AtomicU64::new(unavailable)),
        accepted: Arc::default(),
    };
    let client = Router::new()
        .route("/webhooks", post(receive))
        .with_state(receiver.clone());
    let key = hmac::Key::new(hmac::HMAC_SHA256, b"secret");
    let (layer, recorder) = observed();
    let deferred = layer.handle();
    let app: Router = Router::new()
        .route("/orders", post(place_order))
        .with_state((Client(client), key))
        .layer(layer);
    let (status, _) = read(&app, "POST", "/orders", "").await;
    assert_eq!(status, StatusCode::CREATED);
    deferred.wait_idle().await;
    (receiver, recorder)
}

#[tokio::test(start_paused = true)]
async fn retried_webhook_has_valid_signature() {
    let (receiver, recorder) = order_with_webhook(b"secret", 2).await;
    recorder.assert_succeeded(["webhook"]);
    let body = Bytes::from_static(br#"{"event":"order.placed","order":7}"#);
    assert_eq!(
        *receiver.accepted.lock().unwrap(),
        [("order-7".to_owned(), body)]
    );
}

#[tokio::test(start_paused = true)]
async fn refused_webhook_is_reported() {
    let (receiver, recorder) = order_with_webhook(b"another secret", 0).await;
    assert_eq!(
        recorder.failure("webhook").unwrap(),
        "error: the receiver responded with 401 Unauthorized"
    );
    assert!(receiver.accepted.lock().unwrap().is_empty());
}

// Request metrics

type Metrics = Arc<Mutex<Vec<(String, u16, Delivery, u64)>>>;

async fn request_metrics(
    State(metrics): State<Metrics>,
    request: Request<Body>,
    next: Next,
) -> Response {
    let route = request.extensions().get::<MatchedPath>();
    let route = route.map_or("unmatched", MatchedPath::as_str).to_owned();
    defer(|completion: Completion| async move {
        let status = completion.status().map_or(0, |status| status.as_u16());
        let (delivery, bytes) = (completion.delivery(), completion.body_bytes());
        let recorded = (route, status, delivery, bytes);
        metrics.lock().unwrap().push(recorded);
    })
    .name("request metrics")
    .always();
    next.run(request).await
}

#[tokio::test]
async fn metrics_cover_every_outcome() {
    let metrics = Metrics::default();
    let layer = DeferLayer::new();
    let deferred = layer.handle();
    let app: Router = Router::new()
        .route("/orders/{id}", get(|| async { "order" }))
        .route("/slow", get(std::future::pending::<()>))
        .layer(from_fn_with_state(metrics.clone(), request_metrics))
        .layer(layer);

    read(&app, "GET", "/orders/7", "").await;
    read(&app, "GET", "/nowhere", "").await;
    drop(send(&app, "GET", "/orders/8", "").await);
    {
        let mut slow = Box::pin(send(&app, "GET", "/slow", ""));
        assert!(futures_util::poll!(&mut slow).is_pending());
    }
    deferred.wait_idle().await;

    let mut recorded = metrics.lock().unwrap().clone();
    recorded.sort_by(|one, other| (&one.0, one.3).cmp(&(&other.0, other.3)));
    let order = || "/orders/{id}".to_owned();
    assert_eq!(
        recorded,
        [
            (order(), 200, Delivery::Aborted, 0),
            (order(), 200, Delivery::Complete, 5),
            ("/slow".to_owned(), 0, Delivery::NoResponse, 0),
            ("unmatched".to_owned(), 404, Delivery::Complete, 0),
        ]
    );
}

// Counters

fn is_download(completion: &Completion) -> bool {
    completion.is_success() && completion.is_complete() && completion.body_bytes() > 0
}

#[tokio::test]
async fn only_whole_downloads_are_counted() {
    let downloads = Arc::new(AtomicU64::new(0));
    let (layer, recorder) = observed();
    let deferred = layer.handle();
    let download = |State(downloads): State<Arc<AtomicU64>>| async move {
        defer(async move {
            downloads.fetch_add(1, Ordering::Relaxed);
        })
        .name("count")
        .when(is_download);
        vec![0; 1024]
    };
    let app: Router = Router::new()
        .route("/file", get(download))
        .with_state(downloads.clone())
        .layer(layer);

    read(&app, "GET", "/file", "").await;
    read(&app, "HEAD", "/file", "").await;
    drop(send(&app, "GET", "/file", "").await);
    deferred.wait_idle().await;

    assert_eq!(downloads.load(Ordering::Relaxed), 1);
    recorder.assert_skipped(["count", "count"]);
}

#[test]
fn download_rule_needs_a_whole_body() {
    assert!(is_download(&completion().bytes(9)));
    assert!(!is_download(&completion()));
    assert!(!is_download(&completion().status(404).bytes(9)));
    let aborted = completion().bytes(9).delivery(Delivery::Aborted);
    assert!(!is_download(&aborted));
}

// Deleting a temporary file

/// An app that creates a file, and responds with its content if it is not `broken`.
fn report_app(layer: DeferLayer, path: PathBuf, broken: bool) -> Router {
    let report = move || async move {
        fs::write(&path, "report").map_err(|error| error.to_string())?;
        let to_delete = path.clone();
        defer_blocking(move || fs::remove_file(to_delete))
            .name("delete the report")
            .always();
        if broken {
            return Err("no report today".to_owned());
        }
        let content = fs::read(path).map_err(|error| error.to_string())?;
        Ok(content)
    };
    Router::new().route("/report", get(report)).layer(layer)
}

fn temporary_file() -> PathBuf {
    static FILES: AtomicU64 = AtomicU64::new(0);
    let number = FILES.fetch_add(1, Ordering::SeqCst);
    let name = format!("axum-defer-recipes-{}-{number}", std::process::id());
    std::env::temp_dir().join(name)
}

#[tokio::test]
async fn file_is_deleted_after_the_response() {
    let path = temporary_file();
    let layer = DeferLayer::new();
    let deferred = layer.handle();
    let app = report_app(layer, path.clone(), false);

    let response = send(&app, "GET", "/report", "").await;
    settle().await;
    assert!(path.exists());
    response.into_body().collect().await.unwrap();
    deferred.wait_idle().await;

    assert!(!path.exists());
}

#[tokio::test]
async fn file_is_deleted_after_an_abort() {
    let path = temporary_file();
    let layer = DeferLayer::new();
    let deferred = layer.handle();
    let app = report_app(layer, path.clone(), false);

    drop(send(&app, "GET", "/report", "").await);
    deferred.wait_idle().await;

    assert!(!path.exists());
}

#[tokio::test]
async fn file_is_deleted_after_a_failure() {
    let path = temporary_file();
    let (layer, recorder) = observed();
    let deferred = layer.handle();
    let app = report_app(layer, path.clone(), true);

    read(&app, "GET", "/report", "").await;
    deferred.wait_idle().await;

    recorder.assert_succeeded(["delete the report"]);
    assert!(!path.exists());
}

//! A soak over real sockets: clients that leave at random moments, handlers and callbacks that do
//! whatever they can do wrong. Afterwards every callback that was registered has ended exactly
//! once, nothing is left, and the memory is back.
//!
//! `CHAOS_REQUESTS` says how many requests; the run that counts has 200,000 of them, in release.
//! `CHAOS_SEED` repeats the decisions of a run, which prints its own; their order in time is up to
//! the scheduler.

use std::{
    convert::Infallible,
    future::{Future, pending},
    hash::{BuildHasher, RandomState},
    io::Write,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, AtomicU8, AtomicU64, AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::Path,
    http::{Request, StatusCode},
    response::{IntoResponse, Response},
    routing::get,
    serve::{Listener, ListenerExt},
};
use axum_defer::{
    CallbackInfo, Completion, DeferLayer, DeferObserver, DeferredCallback,
    DeferredCallbackCollection, Finished, LostReason, Outcome, before_response,
    before_response_blocking, defer, defer_blocking,
};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http_body::Body as _;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use socket2::SockRef;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::oneshot,
    task::{JoinSet, yield_now},
};
use tower_http::timeout::TimeoutLayer;

use crate::support::planned_panics::{PLANNED, silence_planned_panics};

const CLIENTS: usize = 32;
const HUNG: Duration = Duration::from_secs(900);

/// Decides; small, fast, and the same everywhere (SplitMix64).
#[derive(Clone)]
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.roll() % bound
    }

    fn one_in(&mut self, bound: u64) -> bool {
        self.below(bound) == 0
    }
}

// The account of every callback.

#[derive(Default)]
struct Entry {
    registered: AtomicU8,
    ran: AtomicU8,
    ended: AtomicU8,
}

#[derive(Default, Debug)]
struct Tally {
    registered: AtomicU64,
    ok: AtomicU64,
    error: AtomicU64,
    panicked: AtomicU64,
    timed_out: AtomicU64,
    skipped: AtomicU64,
    cancelled: AtomicU64,
    replaced: AtomicU64,
    duplicate: AtomicU64,
    lost: AtomicU64,
}

impl Tally {
    fn ends(&self) -> [&AtomicU64; 9] {
        [
            &self.ok,
            &self.error,
            &self.panicked,
            &self.timed_out,
            &self.skipped,
            &self.cancelled,
            &self.replaced,
            &self.duplicate,
            &self.lost,
        ]
    }
}

/// Names are numbers, so that a callback can be found again in constant time.
struct Account {
    entries: Vec<Entry>,
    opened: AtomicUsize,
    tally: Tally,
    alive: AtomicI64,
    /// Callbacks that are to be unique and are running.
    unique: AtomicUsize,
}

/// More than a handler can register names for.
const NAMES_PER_REQUEST: usize = 16;

/// The name of what is to be unique: all requests have it.
const UNIQUE: usize = 0;

impl Account {
    fn new(requests: usize) -> Arc<Self> {
        let mut entries = Vec::new();
        entries.resize_with(UNIQUE + 1 + requests * NAMES_PER_REQUEST, Entry::default);
        Arc::new(Self {
            entries,
            opened: AtomicUsize::new(UNIQUE + 1),
            tally: Tally::default(),
            alive: AtomicI64::new(0),
            unique: AtomicUsize::new(0),
        })
    }

    fn name(&self) -> usize {
        self.opened.fetch_add(1, SeqCst)
    }

    fn end(&self, callback: &CallbackInfo<'_>, kind: &AtomicU64) {
        kind.fetch_add(1, SeqCst);
        if let Some(name) = callback.name() {
            let name: usize = name.parse().expect("a number");
            self.entries[name].ended.fetch_add(1, SeqCst);
        }
    }

    /// Everything that was registered has ended once, and is gone.
    fn assert_settled(&self) {
        let Tally { registered, .. } = &self.tally;
        let ended: u64 = self.tally.ends().iter().map(|end| end.load(SeqCst)).sum();
        assert_eq!(registered.load(SeqCst), ended, "{:?}", self.tally);
        for (name, entry) in self.entries.iter().enumerate() {
            let registered = entry.registered.load(SeqCst);
            assert_eq!(registered, entry.ended.load(SeqCst), "callback {name}");
            // Of two with the same name one at most has run.
            let ran = entry.ran.load(SeqCst);
            assert!(ran <= 1 || name == UNIQUE, "callback {name} ran twice");
        }
        assert_eq!(self.alive.load(SeqCst), 0, "callbacks that are left");
    }
}

struct Auditor(Arc<Account>);

impl DeferObserver for Auditor {
    fn replaced(&self, callback: &CallbackInfo<'_>) {
        self.0.end(callback, &self.0.tally.replaced);
    }

    fn finished(&self, callback: &CallbackInfo<'_>, finished: &Finished<'_>) {
        let tally = &self.0.tally;
        let kind = match finished.outcome {
            Outcome::Ok => &tally.ok,
            Outcome::Error(_) => &tally.error,
            Outcome::Panicked(message) => {
                assert_eq!(message, PLANNED);
                &tally.panicked
            }
            Outcome::TimedOut(_) => &tally.timed_out,
            other => panic!("{other}"),
        };
        self.0.end(callback, kind);
    }

    fn skipped(&self, callback: &CallbackInfo<'_>, _: &Completion) {
        self.0.end(callback, &self.0.tally.skipped);
    }

    fn deduplicated(&self, callback: &CallbackInfo<'_>) {
        self.0.end(callback, &self.0.tally.duplicate);
    }

    fn cancelled(&self, callback: &CallbackInfo<'_>) {
        self.0.end(callback, &self.0.tally.cancelled);
    }

    fn lost(&self, callback: &CallbackInfo<'_>, _: LostReason) {
        self.0.end(callback, &self.0.tally.lost);
    }
}

/// Held by a callback for as long as it exists.
struct Alive {
    account: Arc<Account>,
    name: Option<usize>,
}

impl Alive {
    /// Counts a callback that is registered right after this.
    fn new(account: &Arc<Account>, name: Option<usize>) -> Self {
        account.alive.fetch_add(1, SeqCst);
        account.tally.registered.fetch_add(1, SeqCst);
        if let Some(name) = name {
            account.entries[name].registered.fetch_add(1, SeqCst);
        }
        Self {
            account: account.clone(),
            name,
        }
    }

    fn ran(&self) {
        if let Some(name) = self.name {
            self.account.entries[name].ran.fetch_add(1, SeqCst);
        }
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.account.alive.fetch_sub(1, SeqCst);
    }
}

// What handlers do.

/// Registers one callback of a random kind.
fn register(account: &Arc<Account>, dice: &mut Dice, depth: u32) {
    let name = (!dice.one_in(4)).then(|| account.name());
    let handle = callback(account, dice, name, depth);
    let named = |handle: DeferredCallback| match name {
        Some(name) => handle.name(name.to_string()),
        None => handle,
    };
    let handle = named(handle);
    match dice.below(14) {
        0 => drop(handle.cancel()),
        1 => {
            if let (Some(name), Some(current)) = (name, DeferredCallbackCollection::current()) {
                current.forget(&name.to_string());
            }
        }
        2 => drop(named(callback(account, dice, name, depth))),
        3 => drop(handle.when(|_| false)),
        4 => drop(handle.when(|_| panic!("{PLANNED}"))),
        5..=8 => drop(handle.always()),
        _ => {}
    }
}

fn callback(
    account: &Arc<Account>,
    dice: &mut Dice,
    name: Option<usize>,
    depth: u32,
) -> DeferredCallback {
    let alive = Alive::new(account, name);
    match dice.below(40) {
        0..=3 => defer(async move {
            alive.ran();
            Err::<(), _>(PLANNED)
        }),
        4..=6 => defer(async move {
            alive.ran();
            panic!("{PLANNED}")
        }),
        7 => defer(async move {
            alive.ran();
            pending::<()>().await
        })
        .timeout(Duration::from_millis(2)),
        8 => defer_blocking(move || alive.ran()),
        9 => defer_blocking(move || {
            alive.ran();
            panic!("{PLANNED}")
        }),
        10 => {
            let panics = PanicsWhenDropped(alive);
            defer(async move { panics.0.ran() })
        }
        11..=13 if depth > 0 => {
            let mut dice = Dice(dice.roll());
            defer(async move {
                alive.ran();
                register(&alive.account, &mut dice, depth - 1);
                register(&alive.account, &mut dice, depth - 1);
            })
        }
        14 => {
            let own = DeferredCallbackCollection::current();
            defer(move |_: Completion| async move {
                alive.ran();
                drop(own);
            })
        }
        15..=20 => defer(async move {
            alive.ran();
            for _ in 0..3 {
                yield_now().await;
            }
        }),
        _ => defer(async move { alive.ran() }),
    }
}

/// Registers one callback that the response waits for.
fn register_before(account: &Arc<Account>, dice: &mut Dice) {
    let name = (!dice.one_in(4)).then(|| account.name());
    let alive = Alive::new(account, name);
    let handle = match dice.below(20) {
        0 => before_response(async move {
            alive.ran();
            Err::<(), _>(PLANNED)
        }),
        1 => before_response(async move {
            alive.ran();
            panic!("{PLANNED}")
        }),
        2 => before_response(async move {
            alive.ran();
            pending::<()>().await
        })
        .timeout(Duration::from_millis(2)),
        3 => before_response_blocking(move || alive.ran()),
        4..=6 => {
            let mut dice = Dice(dice.roll());
            before_response(async move {
                alive.ran();
                yield_now().await;
                register(&alive.account, &mut dice, 0);
            })
        }
        7..=9 => {
            let nap = Duration::from_micros(dice.below(2_000));
            before_response(async move {
                alive.ran();
                tokio::time::sleep(nap).await;
            })
        }
        _ => before_response(async move { alive.ran() }),
    };
    let handle = match name {
        Some(name) => handle.name(name.to_string()),
        None => handle,
    };
    match dice.below(10) {
        0 => drop(handle.cancel()),
        1..=4 => drop(handle.always()),
        _ => {}
    }
}

/// What all requests want, and one at a time is enough of.
fn register_unique(account: &Arc<Account>) {
    let alive = Alive::new(account, Some(UNIQUE));
    defer(async move {
        let inside = Inside(alive.account.clone());
        assert_eq!(inside.0.unique.fetch_add(1, SeqCst), 0, "two at a time");
        alive.ran();
        yield_now().await;
    })
    .unique()
    .name(UNIQUE.to_string());
}

/// Also one that is cut off is inside no more.
struct Inside(Arc<Account>);

impl Drop for Inside {
    fn drop(&mut self) {
        self.0.unique.fetch_sub(1, SeqCst);
    }
}

struct PanicsWhenDropped(Alive);

impl Drop for PanicsWhenDropped {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            panic!("{PLANNED}");
        }
    }
}

async fn handler(account: Arc<Account>, seed: u64) -> Response {
    let mut dice = Dice(seed);
    for _ in 0..dice.below(4) {
        register(&account, &mut dice, 1);
        if dice.one_in(4) {
            yield_now().await;
        }
    }
    if dice.one_in(3) {
        for _ in 0..1 + dice.below(2) {
            register_before(&account, &mut dice);
        }
    }
    if dice.one_in(8) {
        register_unique(&account);
    }
    match dice.below(40) {
        0..=1 => panic!("{PLANNED}"),
        2 => pending().await,
        3..=4 => StatusCode::NOT_FOUND.into_response(),
        5 => StatusCode::NO_CONTENT.into_response(),
        6..=7 => Bytes::from(vec![b'x'; 300_000]).into_response(),
        8..=17 => streaming(account, dice).into_response(),
        18..=20 => {
            // The client may be gone by the time that there is an answer.
            tokio::time::sleep(Duration::from_micros(dice.below(2_000))).await;
            "late".into_response()
        }
        _ => "hello".into_response(),
    }
}

/// Frames of all sizes, which defer in between, and may fail in the middle.
fn streaming(account: Arc<Account>, mut dice: Dice) -> Body {
    let frames = 1 + dice.below(30);
    let fails = dice.one_in(5);
    let stream = stream::iter(0..frames).then(move |number| {
        let account = account.clone();
        let mut dice = Dice(dice.roll());
        async move {
            if dice.one_in(3) {
                yield_now().await;
            }
            if dice.one_in(40) {
                register(&account, &mut dice, 0);
            }
            if fails && number + 1 == frames {
                return Err(PLANNED);
            }
            let length = [0, 1, 200, 2_000, 40_000][dice.below(5) as usize];
            Ok(Bytes::from(vec![b'x'; length]))
        }
    });
    Body::from_stream(stream)
}

/// A route for each way to run callbacks, all of them on one account.
fn app(layer: &DeferLayer, account: &Arc<Account>) -> Router {
    let route = || {
        let account = account.clone();
        let stalled = StatusCode::REQUEST_TIMEOUT;
        let stall = TimeoutLayer::with_status_code(stalled, Duration::from_millis(20));
        get(move |Path(seed): Path<u64>| handler(account.clone(), seed))
            .layer::<_, Infallible>(stall)
    };
    Router::new()
        .route("/0/{seed}", route().layer(layer.clone()))
        .route("/1/{seed}", route().layer(layer.clone().concurrent()))
        .route("/2/{seed}", route().layer(layer.clone().max_concurrency(4)))
        .route(
            "/3/{seed}",
            route().layer(layer.clone().run_to_completion()),
        )
}

// What clients do.

/// Requests that are still to be sent, and who sends them to where.
#[derive(Clone)]
struct Plan {
    servers: [SocketAddr; 2],
    left: Arc<AtomicUsize>,
}

impl Plan {
    fn takes_one(&self) -> bool {
        self.left
            .fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1))
            .is_ok()
    }
}

async fn client(plan: Plan, mut dice: Dice) {
    while plan.left.load(SeqCst) > 0 {
        let server = plan.servers[dice.below(2) as usize];
        let Ok(stream) = TcpStream::connect(server).await else {
            return;
        };
        let _ = stream.set_nodelay(true);
        if dice.one_in(2) {
            over_http1(stream, &plan, &mut dice).await;
        } else {
            over_http2(stream, &plan, &mut dice).await;
        }
    }
}

fn request(dice: &mut Dice) -> Request<Empty<Bytes>> {
    let route = dice.below(4);
    let method = if dice.one_in(20) { "HEAD" } else { "GET" };
    Request::builder()
        .method(method)
        .uri(format!("http://chaos/{route}/{}", dice.roll()))
        .header("host", "chaos")
        .body(Empty::new())
        .expect("a request")
}

async fn over_http1(stream: TcpStream, plan: &Plan, dice: &mut Dice) {
    let resets = dice.one_in(8);
    if resets {
        let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
    }
    let Ok((mut sender, connection)) = http1::handshake(TokioIo::new(stream)).await else {
        return;
    };
    let connection = tokio::spawn(connection);
    for _ in 0..=dice.below(8) {
        if !plan.takes_one() {
            break;
        }
        let answer = sender.send_request(request(dice));
        if !take(answer, dice).await || sender.ready().await.is_err() {
            break;
        }
    }
    if resets {
        connection.abort();
    }
    drop(sender);
    let _ = connection.await;
}

async fn over_http2(stream: TcpStream, plan: &Plan, dice: &mut Dice) {
    if dice.one_in(8) {
        let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
    }
    let mut builder = http2::Builder::new(TokioExecutor::new());
    if dice.one_in(2) {
        builder.initial_stream_window_size(1_000);
    }
    let Ok((sender, connection)) = builder.handshake(TokioIo::new(stream)).await else {
        return;
    };
    let connection = tokio::spawn(connection);
    let mut streams = JoinSet::new();
    for _ in 0..=dice.below(16) {
        if !plan.takes_one() {
            break;
        }
        let mut sender = sender.clone();
        let mut dice = Dice(dice.roll());
        streams.spawn(async move {
            let answer = sender.send_request(request(&mut dice));
            take(answer, &mut dice).await
        });
    }
    drop(sender);
    if dice.one_in(6) {
        leave_at_some_time(dice).await;
        connection.abort();
    }
    while streams.join_next().await.is_some() {}
    connection.abort();
}

async fn leave_at_some_time(dice: &mut Dice) {
    match dice.below(3) {
        0 => {
            for _ in 0..dice.below(50) {
                yield_now().await;
            }
        }
        1 => tokio::time::sleep(Duration::from_micros(dice.below(3_000))).await,
        _ => {}
    }
}

/// Takes as much of the answer as the client cares for; whether that was all of it.
async fn take(
    answer: impl Future<Output = hyper::Result<hyper::Response<hyper::body::Incoming>>>,
    dice: &mut Dice,
) -> bool {
    let patience = dice.below(8);
    let answer = if patience == 0 {
        let mut left = dice.clone();
        tokio::select! {
            answer = answer => answer,
            () = leave_at_some_time(&mut left) => return false,
        }
    } else {
        answer.await
    };
    let Ok(answer) = answer else { return false };
    let mut body = answer.into_body();
    let most = if patience == 1 {
        dice.below(6)
    } else {
        u64::MAX
    };
    for _ in 0..most {
        match body.frame().await {
            None => return true,
            Some(Err(_)) => return false,
            Some(Ok(_)) => {}
        }
    }
    if patience == 1 {
        leave_at_some_time(dice).await;
    }
    body.is_end_stream()
}

// The runs.

fn number_from(variable: &str) -> Option<u64> {
    let value = std::env::var(variable).ok()?;
    Some(value.parse().expect("a number"))
}

fn seed() -> Dice {
    let seed = number_from("CHAOS_SEED").unwrap_or_else(|| RandomState::new().hash_one(0));
    report(format_args!("CHAOS_SEED={seed}"));
    Dice(seed)
}

/// Not `println`, which the test harness keeps to itself when all is well.
fn report(text: std::fmt::Arguments<'_>) {
    let _ = writeln!(std::io::stdout(), "chaos: {text}");
}

/// The runs would disturb each other's memory.
fn one_at_a_time() -> MutexGuard<'static, ()> {
    static RUN: Mutex<()> = Mutex::new(());
    RUN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Resident memory in KiB, where the system tells.
fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

async fn listen() -> (impl Listener<Addr = SocketAddr>, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let listener = listener.tap_io(|io| io.set_nodelay(true).expect("a live socket"));
    (listener, address)
}

/// Sends `requests` requests from all clients at once.
async fn storm(servers: [SocketAddr; 2], requests: usize, dice: &mut Dice) {
    let plan = Plan {
        servers,
        left: Arc::new(AtomicUsize::new(requests)),
    };
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        clients.spawn(client(plan.clone(), Dice(dice.roll())));
    }
    while let Some(client) = clients.join_next().await {
        client.expect("a client does not panic");
    }
    assert_eq!(plan.left.load(SeqCst), 0);
}

#[test]
fn every_callback_of_a_storm_ends_exactly_once() {
    let _alone = one_at_a_time();
    silence_planned_panics();
    let mut dice = seed();
    let requests = number_from("CHAOS_REQUESTS").unwrap_or(5_000) as usize;
    let account = Account::new(requests);
    let layer = DeferLayer::new()
        .timeout(Duration::from_secs(60))
        .observer(Auditor(account.clone()));
    let deferred = layer.handle();
    let app = app(&layer, &account);
    drop(layer);

    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(4)
        .enable_all()
        .build()
        .expect("a runtime");
    let soak = async {
        let ((one, at_one), (other, at_other)) = (listen().await, listen().await);
        let (stop_one, stopped_one) = oneshot::channel::<()>();
        let (stop_other, stopped_other) = oneshot::channel::<()>();
        let plain = tokio::spawn(
            axum::serve(one, app.clone())
                .with_graceful_shutdown(async {
                    let _ = stopped_one.await;
                })
                .into_future(),
        );
        let ours = tokio::spawn(
            axum_defer::serve(other, app)
                .with_graceful_shutdown(async {
                    let _ = stopped_other.await;
                })
                .drain_timeout(HUNG)
                .into_future(),
        );

        // Whatever grows to its size once has done so after a quarter.
        storm([at_one, at_other], requests / 4, &mut dice).await;
        deferred.wait_idle().await;
        let level = resident();
        storm([at_one, at_other], requests - requests / 4, &mut dice).await;

        stop_one.send(()).expect("the server runs");
        stop_other.send(()).expect("the server runs");
        plain.await.expect("no panic").expect("no error");
        let drained = ours.await.expect("no panic").expect("no error");
        deferred.wait_idle().await;
        assert!(drained.is_complete(), "{drained}");
        (level, resident())
    };
    let (level, afterwards) =
        runtime.block_on(async { tokio::time::timeout(HUNG, soak).await.expect("it hung") });
    assert_eq!((deferred.pending(), deferred.running()), (0, 0));
    drop(runtime);

    report(format_args!("{requests} requests, {:?}", account.tally));
    account.assert_settled();
    assert_eq!(account.tally.lost.load(SeqCst), 0);
    for end in &account.tally.ends()[..8] {
        assert!(requests < 1_000 || end.load(SeqCst) > 0, "of every kind");
    }
    if let (Some(level), Some(afterwards)) = (level, afterwards) {
        report(format_args!(
            "resident KiB {level}, afterwards {afterwards}"
        ));
        // Less than 200 bytes for each of 200,000 requests; a leaked scope has more.
        let allowed = level + 32 * 1024;
        assert!(
            afterwards < allowed,
            "{level} KiB before, {afterwards} after"
        );
    }
}

/// The runtime goes away in the middle: what could not run is lost, and says so.
#[test]
fn every_callback_of_a_runtime_that_is_dropped_ends_exactly_once() {
    let _alone = one_at_a_time();
    silence_planned_panics();
    let mut dice = seed();
    let requests = 200;
    let mut lost = 0;
    for _ in 0..20 {
        let account = Account::new(requests);
        let layer = DeferLayer::new().observer(Auditor(account.clone()));
        let deferred = layer.handle();
        let app = app(&layer, &account);
        drop(layer);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let ((one, at_one), (other, at_other)) = (listen().await, listen().await);
            tokio::spawn(axum::serve(one, app.clone()).into_future());
            tokio::spawn(axum_defer::serve(other, app).into_future());
            let enough = dice.below(requests as u64);
            let seen = account.clone();
            let registered = move || seen.tally.registered.load(SeqCst);
            tokio::select! {
                () = storm([at_one, at_other], requests, &mut dice) => {}
                () = Until(move || registered() >= enough) => {}
            }
        });
        drop(runtime);
        account.assert_settled();
        assert_eq!((deferred.pending(), deferred.running()), (0, 0));
        lost += account.tally.lost.load(SeqCst);
    }
    report(format_args!("lost to a runtime that went away: {lost}"));
    assert!(lost > 0, "it went away too late, every time");
}

/// Ready as soon as something holds.
struct Until<F>(F);

impl<F: Fn() -> bool + Unpin> Future for Until<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if (self.0)() {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

//! Requests per second and latencies over real sockets, as ratios taken in one interleaved run.
//!
//! All servers run in this process, each on a port of its own; the load comes from a second
//! process, this very binary, on 64 keep-alive connections. Rounds are short and their order is
//! shuffled, and every ratio is taken within a round: what else the machine does hits both sides
//! of it. All of that twice: on the runtime of `#[tokio::main]`, and on a single thread that does
//! nothing else. See `benches/README.md`.

use std::{
    env,
    error::Error,
    future::Future,
    hint::black_box,
    io::{BufRead, BufReader, Write},
    net::{Ipv4Addr, SocketAddr},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use axum::{Router, handler::Handler, routing::get};
use axum_defer::{DeferLayer, defer};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    runtime::Builder,
};
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use crate::{no_op::NoOpLayer, processor_time::processor_time};

mod no_op;
mod processor_time;

const CONNECTIONS: usize = 64;

/// The load on each server in each round.
const ROUND: Duration = Duration::from_millis(400);

const ROUNDS: usize = 25;

const SERVERS: [&str; 11] = [
    "axum::serve, bare",
    "axum::serve, spawn in the handler",
    "axum::serve, DeferLayer, nothing deferred",
    "axum::serve, DeferLayer, 1 callback",
    "axum_defer::serve, bare",
    "axum_defer::serve, DeferLayer, nothing deferred",
    "axum_defer::serve, DeferLayer, 1 callback",
    // The same as the first: how far apart two equal servers come out is the error of the rest.
    "axum::serve, bare, once more",
    "axum::serve, a layer that does nothing",
    "axum::serve, TaskTracker::spawn and Instrument",
    "axum::serve, around the router, nothing deferred",
];

/// Of which server, over which one, and what the ratio of the throughputs should be.
const RATIOS: [(usize, usize, Option<f64>); 11] = [
    (7, 0, None),
    (8, 0, None),
    (1, 0, None),
    (2, 0, Some(0.97)),
    (10, 0, Some(0.985)),
    (3, 9, Some(0.97)),
    (3, 1, None),
    (4, 0, None),
    (5, 2, None),
    (5, 0, None),
    (6, 1, None),
];

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

fn main() -> Outcome {
    if env::args().any(|argument| argument == "--load") {
        return load();
    }
    compare(
        "all threads, as with #[tokio::main]",
        Builder::new_multi_thread(),
    )?;
    compare("one thread", Builder::new_current_thread())
}

/// Serves on the runtime that is given, and reports.
fn compare(name: &str, runtime: Builder) -> Outcome {
    println!("\n=== {name}\n");
    let addresses = serve_all(runtime)?;
    let mut load = Load::start()?;
    let mut shuffle = Shuffle(0x9E37_79B9_7F4A_7C15);
    // The first round warms up and does not count.
    let mut rounds = Vec::new();
    for round in 0..=ROUNDS {
        let mut figures = [Figures::default(); SERVERS.len()];
        for server in shuffle.order() {
            figures[server] = load.on(addresses[server])?;
        }
        if round > 0 {
            rounds.push(figures);
        }
    }
    report(&rounds);
    Ok(())
}

fn report(rounds: &[[Figures; SERVERS.len()]]) {
    println!(
        "{:<50} {:>10} {:>9} {:>9} {:>12}",
        "median of rounds", "requests/s", "p50 us", "p99 us", "CPU us each"
    );
    for (server, name) in SERVERS.iter().enumerate() {
        let median = |figure: fn(&Figures) -> f64| {
            quartiles(rounds.iter().map(|round| figure(&round[server])))[1]
        };
        println!(
            "{name:<50} {:>10.0} {:>9.0} {:>9.0} {:>12.2}",
            median(|figures| figures.per_second),
            median(|figures| figures.p50),
            median(|figures| figures.p99),
            median(|figures| figures.cpu),
        );
    }
    println!(
        "\nratios within a round: median (quartiles)\n{:<50} {:>22} {:>8} {:>22} {:>6} {:>6}",
        "", "throughput", "to reach", "CPU each", "p50", "p99"
    );
    for (of, over, to_reach) in RATIOS {
        let ratio = |figure: fn(&Figures) -> f64| {
            quartiles(
                rounds
                    .iter()
                    .map(|round| figure(&round[of]) / figure(&round[over])),
            )
        };
        let spread = |[low, median, high]: [f64; 3]| format!("{median:.3} ({low:.3}-{high:.3})");
        println!(
            "{:<50} {:>22} {:>8} {:>22} {:>6.2} {:>6.2}\n    over {}",
            SERVERS[of],
            spread(ratio(|figures| figures.per_second)),
            to_reach.map_or_else(String::new, |to_reach| to_reach.to_string()),
            spread(ratio(|figures| figures.cpu)),
            ratio(|figures| figures.p50)[1],
            ratio(|figures| figures.p99)[1],
            SERVERS[over],
        );
    }
}

fn quartiles(figures: impl Iterator<Item = f64>) -> [f64; 3] {
    let mut figures: Vec<f64> = figures.collect();
    figures.sort_by(f64::total_cmp);
    let last = figures.len() - 1;
    [1, 2, 3].map(|quarter| figures[last * quarter / 4])
}

/// What one server did in one round.
#[derive(Clone, Copy, Default)]
struct Figures {
    per_second: f64,
    /// In microseconds, as the others.
    p50: f64,
    p99: f64,
    /// Time on a processor that the servers' process took, per request.
    cpu: f64,
}

/// A small generator of numbers that look random, for the order of the servers.
struct Shuffle(u64);

impl Shuffle {
    fn order(&mut self) -> [usize; SERVERS.len()] {
        let mut order = std::array::from_fn(|index| index);
        for end in (1..order.len()).rev() {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            order.swap(end, (self.0 % (end as u64 + 1)) as usize);
        }
        order
    }
}

static DONE: AtomicU64 = AtomicU64::new(0);

fn work() -> impl Future<Output = ()> + Send + 'static {
    let captured = black_box([1_u64; 3]);
    async move {
        DONE.fetch_add(black_box(captured)[0], Relaxed);
    }
}

async fn respond() -> &'static str {
    "hello"
}

async fn spawns() -> &'static str {
    drop(tokio::spawn(work()));
    "hello"
}

/// For as long as the process runs, as in an app.
static TRACKER: LazyLock<TaskTracker> = LazyLock::new(TaskTracker::new);

async fn tracks() -> &'static str {
    drop(TRACKER.spawn(work().instrument(tracing::info_span!("deferred"))));
    "hello"
}

async fn defers() -> &'static str {
    defer(work());
    "hello"
}

fn app<H, T>(handler: H) -> Router
where
    H: Handler<T, ()>,
    T: 'static,
{
    Router::new().route("/", get(handler))
}

fn serve_all(mut runtime: Builder) -> Outcome<Vec<SocketAddr>> {
    let runtime = runtime.enable_all().build()?;
    let listeners = runtime.block_on(async {
        let mut listeners = Vec::new();
        for _ in SERVERS {
            listeners.push(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?);
        }
        Ok::<_, std::io::Error>(listeners)
    })?;
    let addresses = listeners.iter().map(TcpListener::local_addr);
    let addresses = addresses.collect::<Result<_, _>>()?;
    thread::spawn(move || {
        runtime.block_on(async {
            for (server, listener) in listeners.into_iter().enumerate() {
                let app = match server {
                    1 => app(spawns),
                    2 | 5 => app(respond).layer(DeferLayer::new()),
                    3 | 6 => app(defers).layer(DeferLayer::new()),
                    8 => app(respond).layer(NoOpLayer::<false>),
                    9 => app(tracks),
                    _ => app(respond),
                };
                match server {
                    4..=6 => drop(tokio::spawn(axum_defer::serve(listener, app).into_future())),
                    10 => drop(tokio::spawn(
                        axum::serve(listener, DeferLayer::new().layer(app)).into_future(),
                    )),
                    _ => drop(tokio::spawn(axum::serve(listener, app).into_future())),
                }
            }
            std::future::pending::<()>().await;
        });
    });
    Ok(addresses)
}

/// The process that makes the load.
struct Load {
    process: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Load {
    fn start() -> Outcome<Self> {
        let mut process = Command::new(env::current_exe()?)
            .arg("--load")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let orders = process.stdin.take().ok_or("no pipe to the load")?;
        let answers = process.stdout.take().ok_or("no pipe from the load")?;
        Ok(Self {
            process,
            orders,
            answers: BufReader::new(answers),
        })
    }

    fn on(&mut self, address: SocketAddr) -> Outcome<Figures> {
        let before = processor_time();
        writeln!(self.orders, "{address}")?;
        let mut answer = String::new();
        self.answers.read_line(&mut answer)?;
        let took = processor_time().saturating_sub(before);
        let figures: Vec<f64> = answer
            .split_whitespace()
            .map(str::parse)
            .collect::<Result<_, _>>()?;
        let [requests, per_second, p50, p99] = figures[..] else {
            return Err("the load has failed".into());
        };
        Ok(Figures {
            per_second,
            p50,
            p99,
            cpu: took.as_secs_f64() * 1e6 / requests,
        })
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // It ends by itself when its orders do; this is for when it hangs.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The other process: loads each server that it is told to, and says how that went.
fn load() -> Outcome {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    for address in std::io::stdin().lines() {
        let address: SocketAddr = address?.parse()?;
        let (took, mut latencies) = runtime.block_on(requests(address));
        latencies.sort_unstable();
        let percentile = |percent: usize| {
            let index = (latencies.len() - 1) * percent / 100;
            latencies[index].as_secs_f64() * 1e6
        };
        println!(
            "{} {} {} {}",
            latencies.len(),
            latencies.len() as f64 / took.as_secs_f64(),
            percentile(50),
            percentile(99),
        );
    }
    Ok(())
}

async fn requests(address: SocketAddr) -> (Duration, Vec<Duration>) {
    let start = Instant::now();
    let connections: Vec<_> = (0..CONNECTIONS)
        .map(|_| tokio::spawn(connection(address, start + ROUND)))
        .collect();
    let mut latencies = Vec::new();
    for connection in connections {
        latencies.extend(connection.await.expect("the server answers"));
    }
    (start.elapsed(), latencies)
}

async fn connection(address: SocketAddr, end: Instant) -> Vec<Duration> {
    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let mut stream = TcpStream::connect(address).await.expect("connects");
    stream.set_nodelay(true).expect("a TCP stream");
    let mut latencies = Vec::new();
    let mut response = [0; 1024];
    let mut sent = Instant::now();
    while sent < end {
        stream.write_all(REQUEST).await.expect("the server reads");
        let mut length = 0;
        while !response[..length].ends_with(b"hello") {
            let read = stream.read(&mut response[length..]).await;
            let read = read.expect("the server writes");
            assert!(read > 0, "the server keeps the connection");
            length += read;
        }
        let now = Instant::now();
        latencies.push(now - sent);
        sent = now;
    }
    latencies
}

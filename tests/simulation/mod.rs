//! A server and its clients on a network and a clock that the seed controls.
//!
//! One run is one seed: on a runtime with one thread and a paused clock, `axum_defer::serve` serves
//! connections in memory, whose faults, clients, handlers, callbacks, and shutdown are drawn from the
//! seed. So a run takes milliseconds, however long its pauses are, and a seed always gives the same
//! run. The rules are in `record.rs` (what must hold at once) and `checks.rs` (what must hold at the
//! end); the times that they grant are in `bounds.rs`.

#![allow(
    dead_code,
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    reason = "an internal module, of which each program uses a part"
)]

mod app;
mod body;
mod bounds;
mod callbacks;
mod checks;
mod dice;
mod frames;
mod http1;
mod http2;
mod network;
mod observer;
pub mod panics;
mod record;
mod wire;

use std::{
    future::{Future, IntoFuture},
    time::Duration,
};

use axum_defer::{
    DeferHandle, DeferLayer,
    serve::{Serve, serve},
};
use tokio::{
    runtime::{Builder, Runtime},
    sync::oneshot,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

pub use self::record::ENDS;
use self::{
    app::App,
    bounds::HUNG,
    checks::Drain,
    dice::Dice,
    http1::Http1Client,
    http2::Http2Client,
    network::{ClientEnd, Network, Protocol, SimulatedListener},
    observer::{Observer, left},
    record::World,
};

#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Handlers, callbacks, and bodies may panic. A process that aborts on panics can't have it.
    pub panics: bool,
}

/// What a run has shown.
#[derive(Debug)]
pub struct Outcome {
    /// Broken rules; none if all is well.
    pub violations: Vec<String>,
    /// A fingerprint of all events and their times.
    pub trace: u64,
    pub events: u64,
    pub requests: u64,
    pub callbacks: u64,
    /// How often each of [`ENDS`] was seen.
    pub ends: [u64; ENDS.len()],
}

/// How the life of the server ends.
#[derive(Clone, Copy, Debug)]
enum Ending {
    Shutdown,
    DropServer,
    DropRuntime,
}

/// Runs one seed.
pub fn run(seed: u64, options: Options) -> Outcome {
    panics::install_hook();
    let panics = panics::unplanned();
    let mut dice = Dice::of(seed, 0);
    let ending = match dice.below(12) {
        0 => Ending::DropServer,
        1 => Ending::DropRuntime,
        _ => Ending::Shutdown,
    };
    let runtime = runtime();
    let world = runtime.block_on(async {
        let world = World::new();
        let simulation = Simulation::new(&world, seed, options, dice);
        let run = async {
            match ending {
                Ending::Shutdown => simulation.until_shutdown(clients).await,
                Ending::DropServer => simulation.until_dropped(true).await,
                Ending::DropRuntime => simulation.until_dropped(false).await,
            }
        };
        if timeout(HUNG, run).await.is_err() {
            world.violation("it hung".to_owned());
        }
        world
    });
    world.facts().over = true;
    drop(runtime);
    if panics != panics::unplanned() {
        world.violation("there was a panic that is not planned".to_owned());
    }
    finish(&world)
}

/// Serves a client that sends these bytes: the first eight are the seed of everything else.
pub fn run_bytes(bytes: &[u8]) -> Outcome {
    let (seed, bytes) = bytes.split_at(bytes.len().min(8));
    let seed = seed
        .iter()
        .fold(0, |seed, byte| seed << 8 | u64::from(*byte));
    let runtime = runtime();
    let world = runtime.block_on(async {
        let world = World::new();
        let options = Options { panics: false };
        let simulation = Simulation::new(&world, seed, options, Dice::of(seed, 0));
        let clients = |network, _, dice| clients_with_bytes(network, bytes.to_vec(), dice);
        let run = simulation.until_shutdown(clients);
        if timeout(HUNG, run).await.is_err() {
            world.violation("it hung".to_owned());
        }
        world
    });
    world.facts().over = true;
    drop(runtime);
    finish(&world)
}

fn runtime() -> Runtime {
    Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime needs nothing but memory")
}

fn finish(world: &World) -> Outcome {
    let mut facts = world.facts();
    facts.check_end();
    Outcome {
        violations: facts.violations(),
        trace: facts.trace(),
        events: facts.events(),
        requests: facts.requests.len() as u64,
        callbacks: facts.registered,
        ends: facts.ends(),
    }
}

struct Simulation {
    world: World,
    dice: Dice,
    handle: DeferHandle,
    app: axum::Router,
    network: Network,
    listener: SimulatedListener,
}

impl Simulation {
    fn new(world: &World, seed: u64, options: Options, mut dice: Dice) -> Self {
        let layer = DeferLayer::new()
            .timeout(Duration::from_secs(60))
            .observer(Observer(world.clone()));
        let app = App {
            world: world.clone(),
            seed,
            panics: options.panics,
        };
        let calm = dice.one_in(3);
        let (network, listener) = Network::new(world, calm);
        Self {
            world: world.clone(),
            handle: layer.handle(),
            app: app.router(&layer),
            network,
            listener,
            dice,
        }
    }

    async fn until_shutdown<C>(self, clients: impl FnOnce(Network, World, Dice) -> C)
    where
        C: Future<Output = Vec<ClientEnd>> + Send + 'static,
    {
        let Self {
            world,
            mut dice,
            handle,
            app,
            network,
            listener,
        } = self;
        let (stop, stopped) = oneshot::channel::<()>();
        let limit = Duration::from_millis(dice.pick(&[0, 100, 2_000, 30_000, 300_000]));
        let connection_limit = match dice.one_in(2) {
            true => limit / 10 * 9,
            false => limit / 3,
        };
        let mut server = without_date(serve(listener, app));
        if dice.one_in(4) {
            server = server.max_connections(2);
        }
        let mut server = server
            .with_graceful_shutdown(async {
                let _ = stopped.await;
            })
            .drain_timeout(limit);
        if connection_limit != limit / 10 * 9 {
            server = server.connection_timeout(connection_limit);
        }
        let clients = tokio::spawn(clients(network, world.clone(), dice.fork()));
        let signal = tokio::spawn(shutdown_signal(world.clone(), dice.fork(), stop));
        let report = server.await.expect("a server returns its report");
        world
            .facts()
            .trace_event("drained", limit.as_millis() as u64);
        // It was sent, as the server has returned.
        let signalled = signal.await.expect("the signal does not panic");
        let drain = Drain {
            took: signalled.elapsed(),
            limit,
            connection_limit,
        };
        let still_there = handle.pending() + handle.running();
        world.facts().check_drain(drain, left(&report), still_there);
        // Aborted tasks are dropped when they would be polled next.
        sleep(Duration::from_millis(1)).await;
        world.facts().check_connections();
        let links = clients.await.expect("clients do not panic");
        sleep(dice.pause()).await;
        links.iter().for_each(ClientEnd::reset);
        handle.wait_idle().await;
    }

    async fn until_dropped(self, only_server: bool) {
        let Self {
            world,
            mut dice,
            handle,
            app,
            network,
            listener,
        } = self;
        let server = tokio::spawn(without_date(serve(listener, app)).into_future());
        let clients = tokio::spawn(clients(network, world.clone(), dice.fork()));
        let pause = dice.pause();
        sleep(pause).await;
        if only_server {
            server.abort();
            let _ = server.await;
            let links = clients.await.expect("clients do not panic");
            links.iter().for_each(ClientEnd::reset);
            handle.wait_idle().await;
        }
    }
}

/// The date of a response comes from the clock of the machine, and its length depends on it.
fn without_date<L, M, S, B>(server: Serve<L, M, S, B>) -> Serve<L, M, S, B> {
    server
        .configure_http1(|builder| {
            builder.auto_date_header(false);
        })
        .configure_http2(|builder| {
            builder.auto_date_header(false);
        })
}

/// Sends the signal at some time, and returns when that was.
async fn shutdown_signal(world: World, mut dice: Dice, stop: oneshot::Sender<()>) -> Instant {
    if dice.one_in(3) {
        // Amid the work of one moment.
        let events = dice.below(400);
        while world.facts().events() < events {
            let before = world.facts().events();
            sleep(Duration::from_millis(1)).await;
            for _ in 0..dice.below(20) {
                tokio::task::yield_now().await;
            }
            if before == world.facts().events() && dice.one_in(200) {
                break;
            }
        }
    } else {
        sleep(dice.pause()).await;
        if dice.one_in(2) {
            sleep(dice.pause()).await;
        }
    }
    world.signal();
    let _ = stop.send(());
    Instant::now()
}

/// Runs clients until each has left, or was left by the server.
async fn clients(network: Network, world: World, mut dice: Dice) -> Vec<ClientEnd> {
    let mut clients = JoinSet::new();
    let mut links = Vec::new();
    for _ in 0..=dice.below(4) {
        if dice.one_in(2) {
            sleep(dice.short_pause()).await;
        }
        let protocol = dice.pick(&[Protocol::Http1, Protocol::Http2]);
        let Some(link) = network.connect(protocol, dice.fork()) else {
            break;
        };
        links.push(link.clone());
        let (world, dice) = (world.clone(), dice.fork());
        match protocol {
            Protocol::Http2 => clients.spawn(Http2Client { link, world, dice }.run()),
            _ => clients.spawn(Http1Client { link, world, dice }.run()),
        };
    }
    while let Some(client) = clients.join_next().await {
        client.expect("clients do not panic");
    }
    links
}

/// Runs one client that sends these bytes in pieces, and reads what comes.
async fn clients_with_bytes(network: Network, bytes: Vec<u8>, mut dice: Dice) -> Vec<ClientEnd> {
    let Some(link) = network.connect(Protocol::Raw, dice.fork()) else {
        return Vec::new();
    };
    tokio::spawn(http1::read(link.clone(), dice.fork()));
    let mut rest = &bytes[..];
    while !rest.is_empty() {
        let limit = dice.pick(&[1, 30, 10_000]).min(rest.len() as u64);
        let (piece, left) = rest.split_at(1 + dice.below(limit) as usize);
        link.send(piece);
        rest = left;
        if dice.one_in(8) {
            sleep(dice.pause()).await;
        }
    }
    match dice.below(3) {
        0 => link.close(),
        1 => link.reset(),
        _ => link.until_gone().await,
    }
    vec![link]
}

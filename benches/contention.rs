//! Scaling from one thread to several: the throughput of a router in memory, with deferred callbacks
//! and with spawned tasks.
//!
//! Each round runs both on one thread and on several. Ratios are taken within a round. See
//! `benches/README.md`.

use std::{
    convert::Infallible,
    env,
    future::poll_fn,
    hint::black_box,
    pin::pin,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use axum::{Router, body::Body, extract::Request, response::Response, routing::get};
use axum_defer::{DeferLayer, defer};
use tokio::runtime::{Builder, Runtime};
use tower::ServiceExt;

use crate::no_op::NoOpLayer;

#[path = "cpu/clock.rs"]
mod clock;
#[path = "cpu/no_op.rs"]
mod no_op;

/// Connections per thread, so that each worker's queue has the same length.
const CONNECTIONS: usize = 8;

/// Callbacks per connection and round.
const CALLBACKS: usize = 4_000;

/// The way in which the handler starts its work.
#[derive(Clone, Copy)]
enum How {
    Spawns,
    Defers,
}

/// Seconds per request.
#[derive(Clone, Copy)]
struct Cost {
    time: f64,
    cpu_time: f64,
}

fn main() {
    let threads = thread::available_parallelism().map_or(2, usize::from);
    let more: Vec<usize> = [2, 4, 8, 16]
        .into_iter()
        .filter(|more| *more == 2 || *more <= threads)
        .collect();
    // `cargo bench` passes `--bench`.
    let rounds = env::args().nth(1).and_then(|rounds| rounds.parse().ok());
    let rounds = rounds.unwrap_or(31);
    println!("{threads} cores; medians (quartiles) of {rounds} rounds");
    for callbacks in [1, 100] {
        for more in &more {
            compare(rounds, callbacks, *more);
        }
    }
}

/// Compares one thread with several.
fn compare(rounds: usize, callbacks: usize, threads: usize) {
    let few = Builder::new_multi_thread().worker_threads(1).build();
    let many = Builder::new_multi_thread().worker_threads(threads).build();
    let runtimes = [
        (few.expect("a runtime"), 1),
        (many.expect("a runtime"), threads),
    ];
    let layer = DeferLayer::new();
    let round = || {
        [How::Spawns, How::Defers].map(|how| {
            let on = |(runtime, threads): &(Runtime, usize)| {
                run(runtime, *threads, &layer, how, callbacks)
            };
            runtimes.each_ref().map(on)
        })
    };
    round();
    let rounds: Vec<[[Cost; 2]; 2]> = (0..rounds).map(|_| round()).collect();
    let scaling = |how: How, cost: fn(&Cost) -> f64| {
        move |round: &[[Cost; 2]; 2]| {
            let [one, more] = &round[how as usize];
            cost(one) / cost(more)
        }
    };
    // The CPU time per request is constant if threads do not contend.
    for name in ["throughput", "requests per CPU time"] {
        let cost: fn(&Cost) -> f64 = match name {
            "throughput" => |cost| cost.time,
            _ => |cost| cost.cpu_time,
        };
        let spawns = scaling(How::Spawns, cost);
        let defers = scaling(How::Defers, cost);
        let show = |what, figures: Vec<f64>| {
            show(
                &format!("{callbacks} per request, {threads} threads, {name}, {what}"),
                figures,
            );
        };
        show("spawn", rounds.iter().map(spawns).collect());
        show("defer", rounds.iter().map(defers).collect());
        let ratio = |round| defers(round) / spawns(round);
        show("defer over spawn", rounds.iter().map(ratio).collect());
    }
}

fn show(name: &str, mut figures: Vec<f64>) {
    figures.sort_unstable_by(f64::total_cmp);
    let [low, median, high] = [1, 2, 3].map(|quarter| figures[figures.len() * quarter / 4]);
    println!("{name}: {median:.3} ({low:.3} to {high:.3})");
}

/// Serves requests on the same number of tasks per thread until all callbacks have run.
fn run(runtime: &Runtime, threads: usize, layer: &DeferLayer, how: How, callbacks: usize) -> Cost {
    let connections = CONNECTIONS * threads;
    let requests = CALLBACKS / callbacks;
    let (start, before) = (Instant::now(), clock::process());
    runtime.block_on(async {
        let connections: Vec<_> = (0..connections)
            .map(|_| tokio::spawn(connection(layer.clone(), how, requests, callbacks)))
            .collect();
        for connection in connections {
            connection.await.expect("all requests are served");
        }
    });
    let per_request = |time: Duration| time.as_secs_f64() / (connections * requests) as f64;
    Cost {
        time: per_request(start.elapsed()),
        cpu_time: per_request(clock::process() - before),
    }
}

/// Sends requests one after the other. Connections share only the layer and the runtime.
async fn connection(layer: DeferLayer, how: How, requests: usize, callbacks: usize) {
    let done = Arc::new(());
    let works = done.clone();
    let handler = get(async move || {
        for _ in 0..callbacks {
            let work = work(works.clone());
            match how {
                How::Spawns => drop(tokio::spawn(work)),
                How::Defers => drop(defer(work)),
            }
        }
        "hello"
    });
    let app = Router::new().route("/", handler);
    let app: Router = match how {
        How::Spawns => app.layer(NoOpLayer),
        How::Defers => app.layer(layer),
    };
    for _ in 0..requests {
        let response = app.clone().oneshot(Request::new(Body::empty())).await;
        let Ok::<_, Infallible>(response) = response;
        consume(response).await;
        tokio::task::yield_now().await;
    }
    // One reference is here and one in the handler.
    while Arc::strong_count(&done) > 2 {
        tokio::task::yield_now().await;
    }
}

/// Holds one reference until it ends.
async fn work(done: Arc<()>) {
    black_box(&done);
}

async fn consume(response: Response) {
    let mut body = pin!(response.into_body());
    let frame = poll_fn(|cx| http_body::Body::poll_frame(body.as_mut(), cx)).await;
    drop(black_box(frame));
}

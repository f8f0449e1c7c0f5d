//! One server under measurement per process. The scripts in `benches` start this binary once for
//! every row and round; see `benches/README.md`.

use std::{env, process::ExitCode};

use tokio::{
    net::TcpListener,
    runtime::{Builder, Runtime},
};

use crate::{duplex::Client, variant::Variant};

mod clock;
mod duplex;
mod floor;
mod hand_made;
mod handler;
mod no_op;
mod variant;
mod waiters;

const USAGE: &str = "\
cpu time VARIANT REQUESTS BATCHES CONNECTIONS   nanoseconds of CPU time per request: 2nd percentile
                                                and median of the batches
cpu count VARIANT REQUESTS                      serves requests in memory, for valgrind
cpu serve VARIANT THREADS                       serves on a socket and prints its port
cpu waiters WAITERS                             polls and CPU time per admission by `max_pending(1)`
A VARIANT is SERVER,LAYER,HANDLER,SUBSCRIBER: see `variant.rs`.";

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n";

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["time", variant, requests, batches, connections] => time(
            variant.parse().expect("a variant"),
            number(requests),
            number(batches),
            number(connections),
        ),
        ["count", variant, requests] => {
            count(variant.parse().expect("a variant"), number(requests));
        }
        ["serve", variant, threads] => {
            serve(&variant.parse().expect("a variant"), number(threads));
        }
        ["waiters", waiters] => waiters::measure(number(waiters)),
        // The argument of `cargo bench`.
        _ => {
            println!("{USAGE}");
            return ExitCode::from(2 * u8::from(arguments != ["--bench"]));
        }
    }
    ExitCode::SUCCESS
}

fn number(argument: &str) -> usize {
    argument.parse().expect("a number")
}

fn time(variant: Variant, requests: usize, batches: usize, connections: usize) {
    const WARM_UP: usize = 256;
    variant.subscribe();
    let callbacks = variant.callbacks();
    let runtime = Builder::new_current_thread().enable_all().build();
    let mut took = runtime.expect("a runtime").block_on(async {
        let (mut client, listener) = Client::connect(connections);
        let server = tokio::spawn(async move { variant.serve(listener).await });
        client.requests(WARM_UP, REQUEST).await;
        let mut took = Vec::new();
        for _ in 0..batches {
            let start = clock::process();
            client.requests(requests, REQUEST).await;
            took.push((clock::process() - start).as_nanos() as f64 / requests as f64);
        }
        server.abort();
        took
    });
    check(callbacks * (WARM_UP + requests * batches));
    took.sort_by(f64::total_cmp);
    // Not the minimum, because the clock of a virtual machine may skip.
    println!("{:.1} {:.1}", took[took.len() / 50], took[took.len() / 2]);
}

fn count(variant: Variant, requests: usize) {
    variant.subscribe();
    let callbacks = variant.callbacks();
    runtime(1).block_on(async {
        let (mut client, listener) = Client::connect(1);
        let server = tokio::spawn(async move { variant.serve(listener).await });
        client.requests(requests, REQUEST).await;
        server.abort();
    });
    check(callbacks * requests);
}

fn check(expected: usize) {
    assert_eq!(handler::callbacks_run(), expected, "callbacks that ran");
}

fn serve(variant: &Variant, threads: usize) {
    variant.subscribe();
    runtime(threads).block_on(async {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await;
        let listener = listener.expect("a free port");
        let address = listener.local_addr().expect("a bound socket");
        println!("{}", address.port());
        variant.serve(listener).await;
    });
}

fn runtime(threads: usize) -> Runtime {
    let mut builder = match threads {
        1 => Builder::new_current_thread(),
        _ => Builder::new_multi_thread(),
    };
    let runtime = builder.worker_threads(threads).enable_all().build();
    runtime.expect("a runtime")
}

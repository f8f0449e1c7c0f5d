//! What is counted: the same small app, with what a user would put around it.

use std::{
    convert::Infallible,
    future::Future,
    hint::black_box,
    pin::pin,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use axum::{
    Extension, Router,
    body::{Body, Bytes},
    extract::Request,
    routing::get,
};
use axum_defer::{DeferLayer, defer};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    runtime::Runtime,
};
use tokio_util::task::TaskTracker;
use tower::{Service, ServiceExt};

use crate::{
    floor::{self, FloorLayer},
    neighbours::{self, Pushed},
    no_op::NoOpLayer,
};

/// One thing to count, and how often.
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) warm_up: u32,
    /// 0 for what is not counted per request.
    pub(crate) requests: u32,
    /// Serves this many requests.
    pub(crate) run: fn(u32),
}

pub(crate) const PENDING: &str = "pending";

pub(crate) const SCENARIOS: &[Scenario] = &[
    small("bare axum", |requests| serve(app(respond), requests, 0)),
    small("no-op layer", |requests| {
        serve(app(respond).layer(NoOpLayer::<false>), requests, 0);
    }),
    small("no-op layer with an extension", |requests| {
        serve(app(respond).layer(NoOpLayer::<true>), requests, 0);
    }),
    small("TraceLayer", |requests| {
        let layer = tower_http::trace::TraceLayer::new_for_http();
        serve(app(respond).layer(layer), requests, 0);
    }),
    small("spawn", |requests| serve(app(spawn), requests, 1)),
    small("spawn under no-op layer", |requests| {
        serve(app(spawn).layer(NoOpLayer::<false>), requests, 1);
    }),
    small(
        "TaskTracker::spawn, Instrument, under no-op layer",
        |requests| {
            let tracker = TaskTracker::new();
            let app = app(async move || {
                neighbours::spawn(&tracker, work());
                "hello"
            });
            serve(app.layer(NoOpLayer::<false>), requests, 1);
        },
    ),
    small("hand-made layer, nothing deferred", |requests| {
        serve(neighbours::hand_made(app(respond)), requests, 0);
    }),
    small("hand-made layer, 1 callback", |requests| {
        let app = app(async |Extension(pushed): Extension<Pushed>| {
            pushed.push(work());
            "hello"
        });
        serve(neighbours::hand_made(app), requests, 1);
    }),
    small("floor, nothing deferred", |requests| {
        serve(app(respond).layer(FloorLayer), requests, 0);
    }),
    small("floor, 1 callback", |requests| {
        serve(app(pushes::<1>).layer(FloorLayer), requests, 1);
    }),
    small("DeferLayer, nothing deferred", |requests| {
        serve(app(respond).layer(DeferLayer::new()), requests, 0);
    }),
    small("DeferLayer, 1 callback", |requests| {
        serve(app(defers::<1>).layer(DeferLayer::new()), requests, 1);
    }),
    small("an empty observer, 1 callback", |requests| {
        let layer = DeferLayer::new().observer(Empty);
        serve(app(defers::<1>).layer(layer), requests, 1);
    }),
    #[cfg(feature = "live")]
    small("Live with room, 1 callback", |requests| {
        observed_by_live(axum_defer_live::Live::new(), requests);
    }),
    // Full after the first ones of its warm-up.
    #[cfg(feature = "live")]
    small("Live without room, 1 callback", |requests| {
        observed_by_live(axum_defer_live::Live::new().max_requests(50), requests);
    }),
    small("DeferLayer, 10 callbacks", |requests| {
        serve(app(defers::<10>).layer(DeferLayer::new()), requests, 10);
    }),
    Scenario {
        name: "DeferLayer, 1000 callbacks",
        warm_up: 5,
        requests: 10,
        run: |requests| {
            serve(
                app(defers::<1_000>).layer(DeferLayer::new()),
                requests,
                1_000,
            );
        },
    },
    Scenario {
        name: "DeferLayer, 10000 callbacks",
        warm_up: 2,
        requests: 2,
        run: |requests| {
            serve(
                app(defers::<10_000>).layer(DeferLayer::new()),
                requests,
                10_000,
            );
        },
    },
    small("around the router, nothing deferred", |requests| {
        let app = app(respond).with_state(());
        serve_service(&DeferLayer::new().layer(app), requests, 0);
    }),
    small("around the router, 1 callback", |requests| {
        let app = app(defers::<1>).with_state(());
        serve_service(&DeferLayer::new().layer(app), requests, 1);
    }),
    small("axum::serve, bare", |requests| {
        over_http(requests, 0, |listener| {
            axum::serve(listener, app(respond)).into_future()
        });
    }),
    small("axum_defer::serve, bare", |requests| {
        over_http(requests, 0, |listener| {
            axum_defer::serve(listener, app(respond)).into_future()
        });
    }),
    small("axum::serve, nothing deferred", |requests| {
        over_http(requests, 0, |listener| {
            axum::serve(listener, app(respond).layer(DeferLayer::new())).into_future()
        });
    }),
    small("axum_defer::serve, nothing deferred", |requests| {
        over_http(requests, 0, |listener| {
            axum_defer::serve(listener, app(respond).layer(DeferLayer::new())).into_future()
        });
    }),
    small(
        "axum_defer::serve, no time-out, nothing deferred",
        |requests| {
            over_http(requests, 0, |listener| {
                let app = app(respond).layer(DeferLayer::new());
                without_time_out(axum_defer::serve(listener, app)).into_future()
            });
        },
    ),
    small("axum::serve, spawn", |requests| {
        over_http(requests, 1, |listener| {
            axum::serve(listener, app(spawn)).into_future()
        });
    }),
    small("axum::serve, 1 callback", |requests| {
        over_http(requests, 1, |listener| {
            axum::serve(listener, app(defers::<1>).layer(DeferLayer::new())).into_future()
        });
    }),
    small("axum_defer::serve, 1 callback", |requests| {
        over_http(requests, 1, |listener| {
            axum_defer::serve(listener, app(defers::<1>).layer(DeferLayer::new())).into_future()
        });
    }),
    small("axum_defer::serve, no time-out, 1 callback", |requests| {
        over_http(requests, 1, |listener| {
            let app = app(defers::<1>).layer(DeferLayer::new());
            without_time_out(axum_defer::serve(listener, app)).into_future()
        });
    }),
    small(
        "axum::serve, around the router, nothing deferred",
        |requests| {
            over_http(requests, 0, |listener| {
                axum::serve(listener, DeferLayer::new().layer(app(respond))).into_future()
            });
        },
    ),
    small("axum::serve, around the router, 1 callback", |requests| {
        over_http(requests, 1, |listener| {
            axum::serve(listener, DeferLayer::new().layer(app(defers::<1>))).into_future()
        });
    }),
    small(
        "axum_defer::serve, around the router, nothing deferred",
        |requests| {
            over_http(requests, 0, |listener| {
                axum_defer::serve(listener, DeferLayer::new().layer(app(respond))).into_future()
            });
        },
    ),
    small(
        "axum_defer::serve, around the router, 1 callback",
        |requests| {
            over_http(requests, 1, |listener| {
                axum_defer::serve(listener, DeferLayer::new().layer(app(defers::<1>))).into_future()
            });
        },
    ),
    Scenario {
        name: PENDING,
        warm_up: 0,
        requests: 0,
        run: pend,
    },
];

const fn small(name: &'static str, run: fn(u32)) -> Scenario {
    Scenario {
        name,
        warm_up: 100,
        requests: 400,
        run,
    }
}

fn app<H, T>(handler: H) -> Router
where
    H: axum::handler::Handler<T, ()>,
    T: 'static,
{
    Router::new().route("/", get(handler))
}

/// What it costs that somebody is told.
struct Empty;

impl axum_defer::DeferObserver for Empty {}

#[cfg(feature = "live")]
fn observed_by_live(live: axum_defer_live::Live, requests: u32) {
    let layer = DeferLayer::new().observer(live);
    serve(app(defers::<1>).layer(layer), requests, 1);
}

async fn respond() -> &'static str {
    "hello"
}

async fn spawn() -> &'static str {
    drop(tokio::spawn(work()));
    "hello"
}

async fn defers<const COUNT: u32>() -> &'static str {
    for _ in 0..COUNT {
        defer(work());
    }
    "hello"
}

async fn pushes<const COUNT: u32>() -> &'static str {
    for _ in 0..COUNT {
        floor::push(work());
    }
    "hello"
}

static DONE: AtomicU64 = AtomicU64::new(0);

/// The work that is put off, a future of 32 bytes.
fn work() -> impl Future<Output = ()> + Send + 'static {
    let captured = black_box([1_u64; 3]);
    let work = async move {
        DONE.fetch_add(black_box(captured)[0], Relaxed);
    };
    assert_eq!(size_of_val(&work), 32);
    work
}

/// Without a time driver: its work would depend on the clock.
fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime without drivers")
}

/// Serves requests as hyper does, without its reading and writing.
fn serve(app: Router, requests: u32, callbacks: u64) {
    // As `axum::serve` does: without it, handlers are made into services anew for each request.
    serve_service(&app.with_state(()), requests, callbacks);
}

fn serve_service<S, B>(app: &S, requests: u32, callbacks: u64)
where
    S: Service<Request, Response = http::Response<B>, Error = Infallible> + Clone,
    B: http_body::Body<Data = Bytes>,
{
    runtime().block_on(async {
        for _ in 0..requests {
            let request = Request::new(Body::empty());
            let response = app.clone().oneshot(request).await;
            let Ok(response) = response;
            consume(response).await;
            // Whatever was spawned runs now; many callbacks take several turns.
            for _ in 0..=callbacks / 64 {
                tokio::task::yield_now().await;
            }
        }
    });
    assert_eq!(DONE.load(Relaxed), u64::from(requests) * callbacks);
}

/// What hyper asks of a small body over HTTP/1.1, in hyper's order.
async fn consume<B: http_body::Body<Data = Bytes>>(response: http::Response<B>) {
    let (_, body) = response.into_parts();
    let mut body = pin!(body);
    assert!(!http_body::Body::is_end_stream(&*body));
    black_box(http_body::Body::size_hint(&*body));
    let frame = std::future::poll_fn(|cx| http_body::Body::poll_frame(body.as_mut(), cx)).await;
    assert!(http_body::Body::is_end_stream(&*body));
    drop(black_box(frame));
}

/// Serves requests on one keep-alive connection in memory.
fn over_http<F, S>(requests: u32, callbacks: u64, serve: F)
where
    F: FnOnce(OneConnection) -> S,
    S: Future + Send + 'static,
    S::Output: Send,
{
    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n";
    // hyper has a time-out for the head of a request where it has a timer, as in `axum_defer::serve`.
    // The clock stands still, so that what it costs is always the same.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build();
    runtime.expect("a runtime with a clock").block_on(async {
        let (mut client, server) = tokio::io::duplex(16 * 1024);
        let server = tokio::spawn(serve(OneConnection(Some(server))));
        let mut response = [0; 1024];
        for _ in 0..requests {
            client.write_all(REQUEST).await.expect("the server reads");
            let mut length = 0;
            while !response[..length].ends_with(b"hello") {
                let read = client.read(&mut response[length..]).await;
                let read = read.expect("the server writes");
                assert!(read > 0, "the server answers");
                length += read;
            }
            assert!(response.starts_with(b"HTTP/1.1 200"));
            tokio::task::yield_now().await;
        }
        server.abort();
    });
    assert_eq!(DONE.load(Relaxed), u64::from(requests) * callbacks);
}

/// As `axum::serve` is: the head of a request, and the next request, may take for ever.
fn without_time_out<M, S, B>(
    server: axum_defer::serve::Serve<OneConnection, M, S, B>,
) -> axum_defer::serve::Serve<OneConnection, M, S, B> {
    server.header_read_timeout(None)
}

/// Accepts one connection and no more.
struct OneConnection(Option<DuplexStream>);

impl axum::serve::Listener for OneConnection {
    type Io = DuplexStream;
    type Addr = ();

    async fn accept(&mut self) -> (DuplexStream, ()) {
        match self.0.take() {
            Some(io) => (io, ()),
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Lets so many callbacks of one request wait.
fn pend(callbacks: u32) {
    let app = app(move || async move {
        for _ in 0..callbacks {
            defer(work());
        }
        "hello"
    });
    serve(app.layer(DeferLayer::new()), 1, u64::from(callbacks));
}

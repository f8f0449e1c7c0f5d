//! When a response is over, and which callbacks run then: each kind of response, over a plain
//! `axum::serve`, on every protocol that it speaks.

use std::{any::Any, collections::BTreeMap, convert::Infallible, io, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    body::Body,
    extract::Request,
    http::{Method, StatusCode, Version, header},
    response::{Redirect, Response, Sse, sse::Event},
    routing::{any, get},
};
use axum_defer::{
    DeferLayer,
    Delivery::{self, Aborted, BodyError, Complete, NoResponse},
    Level,
};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http_body_util::{BodyExt, Full};
use tokio::sync::Notify;
use tower::{Layer, ServiceExt, service_fn, util::MapRequestLayer};
use tower_http::{services::ServeDir, timeout::TimeoutLayer};

use crate::support::{
    self, Events, Log, Server, What, data, directory_with, frames, hello_and_then, in_time,
    request, stream_of, trailers, websocket,
};

/// One line of the table.
struct Row {
    kind: &'static str,
    wires: &'static [Wire],
    request: &'static str,
    client: Client,
    status: Option<u16>,
    success: bool,
    delivery: Delivery,
    bytes: Count,
    runs: Runs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wire {
    /// HTTP/1.1, and a second request on the same connection.
    KeepAlive,
    /// HTTP/1.1 with `Connection: close`.
    Close,
    /// HTTP/1.0.
    Old,
    /// HTTP/1.1, and a second request sent before the first response is read.
    Pipelined,
    /// HTTP/2, and a second request on the same connection at the same time.
    Http2,
}
use Wire::{Close, Http2, KeepAlive, Old, Pipelined};

/// What the client does.
#[derive(Clone, Copy)]
enum Client {
    ReadsAll,
    /// Breaks off when it has read this.
    ResetsAfter(&'static str),
    /// Closes when it has read this.
    LeavesAfter(&'static str),
    /// Breaks off when the handler has begun.
    ResetsWhileItWaits,
    OpensAWebSocket,
}
use Client::{LeavesAfter, OpensAWebSocket, ReadsAll, ResetsAfter, ResetsWhileItWaits};

#[derive(Clone, Copy)]
enum Count {
    Exactly(u64),
    AtLeast(u64),
}
use Count::{AtLeast, Exactly};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Runs {
    Both,
    OnlyAlways,
}
use Runs::{Both, OnlyAlways};

const EVERY: &[Wire] = &[KeepAlive, Close, Old, Pipelined, Http2];
const HTTP_1: &[Wire] = &[KeepAlive, Close, Old, Pipelined];
const HTTP_1_1: &[Wire] = &[KeepAlive];
const HTTP_2: &[Wire] = &[Http2];

const SUCCESS: bool = true;
const FAILURE: bool = false;
const LARGE: u64 = 2 * 1024 * 1024;

#[rustfmt::skip]
const TABLE: &[Row] = &[
    // Bodies of one frame.
    row("&str",                         EVERY,    "GET /text",            ReadsAll, 200, SUCCESS, Complete, Exactly(7), Both),
    row("JSON",                         EVERY,    "GET /json",            ReadsAll, 200, SUCCESS, Complete, Exactly(11), Both),
    row("Full, no axum",                EVERY,    "GET /bare/full",       ReadsAll, 200, SUCCESS, Complete, Exactly(4), Both),
    row("large, read to the end",       EVERY,    "GET /large",           ReadsAll, 200, SUCCESS, Complete, Exactly(LARGE), Both),
    row("large, client resets",         EVERY,    "GET /large",           ResetsAfter("xx"), 200, SUCCESS, Complete, Exactly(LARGE), Both),
    row("file",                         EVERY,    "GET /files/file.txt",  ReadsAll, 200, SUCCESS, Complete, Exactly(14), Both),
    row("file that is not there",       EVERY,    "GET /files/none.txt",  ReadsAll, 404, FAILURE, Complete, Exactly(0), OnlyAlways),
    // No body.
    row("empty",                        EVERY,    "GET /empty",           ReadsAll, 200, SUCCESS, Complete, Exactly(0), Both),
    row("204",                          EVERY,    "GET /204",             ReadsAll, 204, SUCCESS, Complete, Exactly(0), Both),
    row("304",                          EVERY,    "GET /304",             ReadsAll, 304, SUCCESS, Complete, Exactly(0), Both),
    row("204 whose body is a stream",   HTTP_1,   "GET /bare/204",        ReadsAll, 204, SUCCESS, Complete, Exactly(0), Both),
    row("304 whose body is a stream",   HTTP_1,   "GET /bare/304",        ReadsAll, 304, SUCCESS, Complete, Exactly(0), Both),
    row("304 whose body is Full",       HTTP_1,   "GET /bare/304-full",   ReadsAll, 304, SUCCESS, Complete, Exactly(0), Both),
    row("HEAD of &str",                 EVERY,    "HEAD /text",           ReadsAll, 200, SUCCESS, Complete, Exactly(0), Both),
    row("HEAD of JSON",                 EVERY,    "HEAD /json",           ReadsAll, 200, SUCCESS, Complete, Exactly(0), Both),
    row("HEAD of empty",                EVERY,    "HEAD /empty",          ReadsAll, 200, SUCCESS, Complete, Exactly(0), Both),
    row("HEAD of a stream",             EVERY,    "HEAD /stream",         ReadsAll, 200, SUCCESS, Complete, Exactly(0), Both),
    row("HEAD of a Content-Length stream", EVERY, "HEAD /length",         ReadsAll, 200, SUCCESS, Complete, Exactly(0), Both),
    row("HEAD of SSE",                  EVERY,    "HEAD /sse",            ReadsAll, 200, SUCCESS, Complete, Exactly(0), Both),
    row("HEAD of a file",               EVERY,    "HEAD /files/file.txt", ReadsAll, 200, SUCCESS, Complete, Exactly(0), Both),
    row("HEAD that fails",              EVERY,    "HEAD /500",            ReadsAll, 500, FAILURE, Complete, Exactly(0), OnlyAlways),
    row("HEAD of Full, no axum",        HTTP_1,   "HEAD /bare/full",      ReadsAll, 200, SUCCESS, Complete, Exactly(0), Both),
    row("HEAD of a stream, no axum",    HTTP_1,   "HEAD /bare/stream",    ReadsAll, 200, SUCCESS, Complete, Exactly(0), Both),
    row("CONNECT whose body is Full",   HTTP_1_1, "CONNECT example.com:80", LeavesAfter("\r\n\r\n"), 200, SUCCESS, Complete, Exactly(0), Both),
    row("101 WebSocket",                HTTP_1_1, "GET /websocket",       OpensAWebSocket, 101, SUCCESS, Complete, Exactly(0), Both),
    // Streams.
    row("chunked",                      EVERY,    "GET /stream",          ReadsAll, 200, SUCCESS, Complete, Exactly(10), Both),
    row("Content-Length stream",        EVERY,    "GET /length",          ReadsAll, 200, SUCCESS, Complete, Exactly(10), Both),
    row("Content-Length stream that never says None", HTTP_1, "GET /length-then-pending", ReadsAll, 200, SUCCESS, Complete, Exactly(10), Both),
    row("Content-Length: 0 stream",     EVERY,    "GET /length-0",        ReadsAll, 200, SUCCESS, Complete, Exactly(0), Both),
    row("SSE that ends",                EVERY,    "GET /sse-ends",        ReadsAll, 200, SUCCESS, Complete, Exactly(13), Both),
    row("SSE, client leaves",           EVERY,    "GET /sse",             LeavesAfter("data: hello\n\n"), 200, SUCCESS, Aborted, Exactly(13), Both),
    row("trailers",                     EVERY,    "GET /trailers",        ReadsAll, 200, SUCCESS, Complete, Exactly(5), Both),
    row("nothing but trailers",         EVERY,    "GET /only-trailers",   ReadsAll, 200, SUCCESS, Complete, Exactly(0), Both),
    // What goes wrong after the head.
    row("body error",                   EVERY,    "GET /body-error",      ReadsAll, 200, SUCCESS, BodyError, Exactly(5), Both),
    row("body error of a failure",      EVERY,    "GET /500-body-error",  ReadsAll, 500, FAILURE, BodyError, Exactly(5), OnlyAlways),
    row("body that panics",             EVERY,    "GET /body-panic",      ReadsAll, 200, SUCCESS, BodyError, Exactly(5), Both),
    row("shorter than its Content-Length", EVERY, "GET /short",           ReadsAll, 200, SUCCESS, BodyError, Exactly(5), Both),
    row("longer than its Content-Length",  HTTP_1, "GET /long",           ReadsAll, 200, SUCCESS, Complete, Exactly(5), Both),
    row("reset in mid-body",            EVERY,    "GET /stalls",          ResetsAfter("hello"), 200, SUCCESS, Aborted, Exactly(5), Both),
    row("reset in mid-body of a failure", EVERY,  "GET /500-stalls",      ResetsAfter("hello"), 500, FAILURE, Aborted, Exactly(5), OnlyAlways),
    row("reset of an endless body",     EVERY,    "GET /endless",         ResetsAfter("xx"), 200, SUCCESS, Aborted, AtLeast(2), Both),
    row("reset of a Content-Length stream", EVERY, "GET /length-stalls",  ResetsAfter("hello"), 200, SUCCESS, Aborted, Exactly(5), Both),
    // The status decides.
    row("redirect",                     EVERY,    "GET /redirect",        ReadsAll, 303, SUCCESS, Complete, Exactly(0), Both),
    row("status 399",                   EVERY,    "GET /399",             ReadsAll, 399, SUCCESS, Complete, Exactly(0), Both),
    row("status 400",                   EVERY,    "GET /400",             ReadsAll, 400, FAILURE, Complete, Exactly(0), OnlyAlways),
    row("no such route",                EVERY,    "GET /none",            ReadsAll, 404, FAILURE, Complete, Exactly(0), OnlyAlways),
    row("method not allowed",           EVERY,    "DELETE /text",         ReadsAll, 405, FAILURE, Complete, Exactly(0), OnlyAlways),
    row("status 500 with a body",       EVERY,    "GET /500",             ReadsAll, 500, FAILURE, Complete, Exactly(4), OnlyAlways),
    row("inner time-out",               EVERY,    "GET /timeout",         ReadsAll, 408, FAILURE, Complete, Exactly(0), OnlyAlways),
    // No response.
    row("reset before the response",    EVERY,    "GET /never",           ResetsWhileItWaits, 0, FAILURE, NoResponse, Exactly(0), OnlyAlways),
    row("handler panic",                EVERY,    "GET /panic",           ReadsAll, 0, FAILURE, NoResponse, Exactly(0), OnlyAlways),
    row("panic before the first await", EVERY,    "GET /bare/panic",      ReadsAll, 0, FAILURE, NoResponse, Exactly(0), OnlyAlways),
    // hyper 1.12 takes these bodies over HTTP/2, where there should be none: so the bytes are its own.
    row("HEAD of Full, no axum, HTTP/2", HTTP_2,  "HEAD /bare/full",      ReadsAll, 200, SUCCESS, Complete, AtLeast(0), Both),
    row("204 whose body is a stream, HTTP/2", HTTP_2, "GET /bare/204",    ReadsAll, 204, SUCCESS, Complete, AtLeast(0), Both),
    row("304 whose body is Full, HTTP/2", HTTP_2, "GET /bare/304-full",   ReadsAll, 304, SUCCESS, Complete, AtLeast(0), Both),
];

/// A status of 0 stands for none.
#[allow(clippy::too_many_arguments, reason = "the columns of the table")]
const fn row(
    kind: &'static str,
    wires: &'static [Wire],
    request: &'static str,
    client: Client,
    status: u16,
    success: bool,
    delivery: Delivery,
    bytes: Count,
    runs: Runs,
) -> Row {
    let status = match status {
        0 => None,
        status => Some(status),
    };
    Row {
        kind,
        wires,
        request,
        client,
        status,
        success,
        delivery,
        bytes,
        runs,
    }
}

#[tokio::test]
async fn http1_keep_alive() {
    check(KeepAlive).await;
}

#[tokio::test]
async fn http1_close() {
    check(Close).await;
}

#[tokio::test]
async fn http_1_0() {
    check(Old).await;
}

#[tokio::test]
async fn pipelined_requests() {
    check(Pipelined).await;
}

#[tokio::test]
async fn http2_connection() {
    check(Http2).await;
}

/// The exception in the docs: hyper 1.12 takes the body, and the client gets it.
#[tokio::test]
async fn http2_body_of_304_is_counted() {
    let (log, mut events) = Log::new();
    let answer = move || async move {
        log.defer("callback");
        (StatusCode::NOT_MODIFIED, "ten bytes.")
    };
    let app = Router::new().route("/", get(answer));
    let server = Server::start(app.layer(DeferLayer::new())).await;
    let response = server.http2().await.send_request(request("GET", "/")).await;
    let body = in_time(response.unwrap().into_body().collect()).await;
    assert_eq!(body.unwrap().to_bytes(), "ten bytes.");
    let (_, what) = events.next().await;
    let completion = what.completion();
    assert_eq!(
        (completion.delivery(), completion.body_bytes()),
        (Complete, 10)
    );
}

async fn check(wire: Wire) {
    let mut faults = Vec::new();
    let mut rows = 0;
    for row in TABLE.iter().filter(|row| row.wires.contains(&wire)) {
        rows += 1;
        if let Err(fault) = in_time(row.check(wire)).await {
            faults.push(format!("{}: {fault}", row.kind));
        }
    }
    assert!(rows > 40, "the table has been emptied");
    assert!(faults.is_empty(), "{wire:?}\n{}", faults.join("\n"));
}

impl Row {
    fn method(&self) -> &'static str {
        self.request.split_once(' ').unwrap().0
    }

    fn path(&self) -> &'static str {
        self.request.split_once(' ').unwrap().1
    }

    async fn check(&self, wire: Wire) -> Result<(), String> {
        let (log, mut events) = Log::new();
        let layer = DeferLayer::new().observer(log.clone());
        let handle = layer.handle();
        let begun = Arc::new(Notify::new());
        let app = service(begun.clone());
        let app = layer.layer(register_both(log).layer(app));
        let app = app.map_response(|response| response.map(Body::new));
        let server = Server::start(app).await;

        let exchange = match wire {
            Http2 => self.over_http2(&server, &begun).await,
            _ => self.over_http1(&server, &begun, wire).await,
        };
        let mut expected = BTreeMap::from([(self.path(), 1)]);
        if exchange.second {
            expected.insert("/second", 1);
        }
        let verdicts = verdicts(&mut events, &expected).await?;
        handle.wait_idle().await;
        let late = events.so_far();
        if !late.is_empty() {
            return Err(format!("fired more than once: {late:?}"));
        }
        if exchange.status != self.status {
            return Err(format!("the client saw {:?}", exchange.status));
        }
        drop(exchange.open);
        self.compare(&verdicts[self.path()])?;
        if let Some(second) = verdicts.get("/second") {
            SECOND.compare(second)?;
        }
        Ok(())
    }

    fn compare(&self, (default, always): &(What, What)) -> Result<(), String> {
        let completion = always.completion();
        let both_agree = default.completion() == completion;
        let ran = (
            matches!(default, What::Ran(_)),
            matches!(always, What::Ran(_)),
        );
        let bytes = completion.body_bytes();
        let is_right = both_agree
            && completion.status().map(|status| status.as_u16()) == self.status
            && completion.is_success() == self.success
            && completion.delivery() == self.delivery
            && completion.is_complete() == (self.delivery == Complete)
            && completion.level() == Level::HandedOff
            && match self.bytes {
                Exactly(expected) => bytes == expected,
                AtLeast(least) => bytes >= least,
            }
            && ran == (self.runs == Both, true);
        if is_right {
            Ok(())
        } else {
            Err(format!("default: {default:?}, always: {always:?}"))
        }
    }

    async fn over_http1(&self, server: &Server, begun: &Notify, wire: Wire) -> Exchange {
        let (method, path) = (self.method(), self.path());
        let (version, connection) = match wire {
            Old => ("1.0", ""),
            Close => ("1.1", "connection: close\r\n"),
            _ => ("1.1", ""),
        };
        // A connection that fails, or stops speaking HTTP, answers no second request.
        let continues = matches!(wire, KeepAlive | Pipelined)
            && matches!(self.client, ReadsAll)
            && self.delivery == Complete;
        let mut client = server.raw().await;
        if matches!(self.client, OpensAWebSocket) {
            let url = format!("ws://localhost{path}");
            let stream = client.into_stream();
            let (socket, response) = tokio_tungstenite::client_async(url, stream).await.unwrap();
            return Exchange {
                status: Some(response.status().as_u16()),
                second: false,
                open: Some(Box::new(socket)),
            };
        }
        let mut text = format!(
            "{method} {path} HTTP/{version}\r\nhost: localhost\r\nte: trailers\r\n{connection}\r\n"
        );
        if wire == Pipelined && continues {
            text.push_str("GET /second HTTP/1.1\r\nhost: localhost\r\n\r\n");
        }
        client.send(&text).await;
        let status = match self.client {
            ReadsAll => {
                let response = client.response(method == "HEAD").await;
                if let Some(response) = &response {
                    // Without framing, HTTP/1.0 can't tell a body that broke off.
                    let unframed = wire == Old && !response.head.contains("content-length");
                    let whole = self.delivery == Complete || unframed;
                    assert_eq!(response.whole, whole, "{}: {}", self.kind, response.head);
                }
                response.map(|response| response.status)
            }
            ResetsAfter(text) | LeavesAfter(text) => {
                client.read_until(text).await;
                match self.client {
                    ResetsAfter(_) => client.reset(),
                    _ => drop(client),
                }
                return Exchange::only(self.status);
            }
            ResetsWhileItWaits | OpensAWebSocket => {
                begun.notified().await;
                client.reset();
                return Exchange::only(None);
            }
        };
        if continues {
            if wire == KeepAlive {
                client.get("/second").await;
            }
            let response = client.response(false).await.unwrap();
            assert_eq!(response.body, b"second");
        }
        Exchange {
            second: continues,
            ..Exchange::only(status)
        }
    }

    async fn over_http2(&self, server: &Server, begun: &Notify) -> Exchange {
        let mut client = server.http2().await;
        let mut first = Box::pin(client.send_request(request(self.method(), self.path())));
        let mut other = client.clone();
        let second = tokio::spawn(async move {
            let response = other.send_request(support::get("/second")).await.unwrap();
            response.into_body().collect().await.unwrap().to_bytes()
        });
        let status = if let ResetsWhileItWaits = self.client {
            tokio::select! {
                response = &mut first => panic!("a response: {response:?}"),
                () = begun.notified() => {}
            }
            drop(first);
            None
        } else {
            match first.await {
                Ok(response) => {
                    let status = response.status().as_u16();
                    self.read(response.into_body()).await;
                    Some(status)
                }
                Err(_) => None,
            }
        };
        assert_eq!(second.await.unwrap(), "second");
        Exchange {
            second: true,
            ..Exchange::only(status)
        }
    }

    async fn read(&self, mut body: hyper::body::Incoming) {
        let text = match self.client {
            ResetsAfter(text) | LeavesAfter(text) => text.as_bytes(),
            _ => {
                while let Some(Ok(_)) = body.frame().await {}
                return;
            }
        };
        let mut received = Vec::new();
        while !received.windows(text.len()).any(|window| window == text) {
            let frame = body.frame().await.unwrap().unwrap();
            received.extend_from_slice(frame.data_ref().unwrap());
        }
    }
}

/// What the client had of it.
struct Exchange {
    status: Option<u16>,
    /// Whether a second request was answered.
    second: bool,
    /// What stays open while the callbacks are waited for.
    open: Option<Box<dyn Any>>,
}

impl Exchange {
    fn only(status: Option<u16>) -> Self {
        Self {
            status,
            second: false,
            open: None,
        }
    }
}

const SECOND: Row = row(
    "second",
    EVERY,
    "GET /second",
    ReadsAll,
    200,
    SUCCESS,
    Complete,
    Exactly(6),
    Both,
);

/// What became of the default and the always callback of each request.
async fn verdicts(
    events: &mut Events,
    expected: &BTreeMap<&str, usize>,
) -> Result<BTreeMap<String, (What, What)>, String> {
    let mut default = BTreeMap::new();
    let mut verdicts = BTreeMap::new();
    while verdicts.len() < expected.len() {
        let (name, what) = events.next().await;
        let (rule, path) = name.split_once(' ').unwrap();
        let text = format!("{what:?}");
        let earlier = match rule {
            "default" => default.insert(path.to_owned(), what).map(|_| ()),
            _ => {
                let default = default
                    .get(path)
                    .ok_or(format!("{path}: default did not come first"))?;
                verdicts
                    .insert(path.to_owned(), (default.clone(), what))
                    .map(|_| ())
            }
        };
        if earlier.is_some() || !expected.contains_key(path) {
            return Err(format!("{name} should not have come: {text}"));
        }
    }
    Ok(verdicts)
}

/// Defers one callback of each kind for every request, before anything else sees it.
fn register_both(log: Log) -> MapRequestLayer<impl Fn(Request) -> Request + Clone> {
    MapRequestLayer::new(move |request: Request| {
        let uri = request.uri();
        let path = match uri.path() {
            "" => uri.authority().unwrap().as_str(),
            path => path,
        };
        log.defer(&format!("default {path}"));
        log.defer(&format!("always {path}")).always();
        request
    })
}

/// The routes, and beside them a Tower service without axum, which hands bodies out as they are.
fn service(
    begun: Arc<Notify>,
) -> impl tower::Service<Request, Response = Response, Error = Infallible, Future: Send>
+ Clone
+ Send
+ Sync {
    let routes = routes(begun);
    service_fn(move |request: Request| {
        let path = request.uri().path();
        assert!(path != "/bare/panic", "on purpose, in `call`");
        let bare =
            (path.starts_with("/bare/") || request.method() == Method::CONNECT).then(|| bare(path));
        let routes = routes.clone();
        async move {
            match bare {
                Some(response) => Ok(response),
                None => routes.oneshot(request).await,
            }
        }
    })
}

fn bare(path: &str) -> Response {
    let full = || Body::new(Full::new(Bytes::from_static(b"full")));
    let (status, body) = match path {
        "/bare/204" => (204, stream_of(["never", "taken"])),
        "/bare/304" => (304, stream_of(["never", "taken"])),
        "/bare/304-full" => (304, full()),
        "/bare/stream" => (200, stream_of(["never", "taken"])),
        _ => (200, full()),
    };
    Response::builder().status(status).body(body).unwrap()
}

fn stalls() -> Body {
    Body::from_stream(stream::iter([Ok::<_, io::Error>("hello")]).chain(stream::pending()))
}

fn body_error() -> Body {
    hello_and_then(|| [Err(io::Error::other("on purpose"))])
}

fn routes(begun: Arc<Notify>) -> Router {
    let directory = directory_with("truth_table", "file.txt", b"fourteen bytes");
    let length = |length: &'static str, body: fn() -> Body| {
        get(move || async move { ([(header::CONTENT_LENGTH, length)], body()) })
    };
    let hello = || Ok::<_, Infallible>(Event::default().data("hello"));
    Router::new()
        .route("/second", get(|| async { "second" }))
        .route("/text", get(|| async { "a reply" }))
        .route("/json", get(|| async { Json([("key", 1)]) }))
        .route(
            "/large",
            get(|| async { Bytes::from(vec![b'x'; LARGE as usize]) }),
        )
        .route("/empty", get(|| async {}))
        .route("/204", get(|| async { StatusCode::NO_CONTENT }))
        .route("/304", get(|| async { StatusCode::NOT_MODIFIED }))
        .route("/399", get(|| async { StatusCode::from_u16(399).unwrap() }))
        .route("/400", get(|| async { StatusCode::BAD_REQUEST }))
        .route(
            "/500",
            get(|| async { (StatusCode::INTERNAL_SERVER_ERROR, "oops") }),
        )
        .route("/redirect", get(|| async { Redirect::to("/text") }))
        .route("/stream", get(|| async { stream_of(["hello", "world"]) }))
        .route("/length", length("10", || stream_of(["hello", "world"])))
        .route(
            "/length-then-pending",
            length("10", || {
                Body::from_stream(
                    stream::iter(["hello", "world"].map(Ok::<_, io::Error>))
                        .chain(stream::pending()),
                )
            }),
        )
        .route("/length-0", length("0", || stream_of([])))
        .route("/length-stalls", length("10", stalls))
        .route("/short", length("10", || hello_and_then(|| [])))
        .route("/long", length("5", || stream_of(["he", "llo, world"])))
        .route(
            "/sse",
            get(move || async move { Sse::new(stream::iter([hello()]).chain(stream::pending())) }),
        )
        .route(
            "/sse-ends",
            get(move || async move { Sse::new(stream::iter([hello()])) }),
        )
        .route(
            "/trailers",
            get(|| async {
                (
                    [("trailer", "checksum")],
                    frames([data("hello"), trailers()]),
                )
            }),
        )
        .route(
            "/only-trailers",
            get(|| async { ([("trailer", "checksum")], frames([trailers()])) }),
        )
        .route("/body-error", get(|| async { body_error() }))
        .route(
            "/500-body-error",
            get(|| async { (StatusCode::INTERNAL_SERVER_ERROR, body_error()) }),
        )
        .route(
            "/body-panic",
            get(|| async { hello_and_then(|| -> [_; 0] { panic!("on purpose, in the body") }) }),
        )
        .route("/stalls", get(|| async { stalls() }))
        .route(
            "/500-stalls",
            get(|| async { (StatusCode::INTERNAL_SERVER_ERROR, stalls()) }),
        )
        .route(
            "/endless",
            get(|| async {
                // h2 takes a flood of small frames for an attack.
                let chunk = Bytes::from(vec![b'x'; 16 * 1024]);
                Body::from_stream(stream::repeat_with(move || {
                    Ok::<_, io::Error>(chunk.clone())
                }))
            }),
        )
        .route(
            "/never",
            get(move || async move {
                begun.notify_one();
                std::future::pending::<()>().await;
            }),
        )
        .route("/panic", get(panics))
        .route(
            "/timeout",
            get(std::future::pending::<()>).layer(TimeoutLayer::with_status_code(
                StatusCode::REQUEST_TIMEOUT,
                Duration::from_millis(1),
            )),
        )
        .route("/websocket", any(web_socket))
        .nest_service("/files", ServeDir::new(directory))
}

async fn panics() {
    tokio::task::yield_now().await;
    panic!("on purpose, in the handler");
}

async fn web_socket(request: Request) -> Response {
    assert_eq!(request.version(), Version::HTTP_11);
    websocket::upgrade(request, |mut socket| async move {
        // Stays open for as long as the client does.
        while let Some(Ok(_)) = socket.next().await {}
    })
}

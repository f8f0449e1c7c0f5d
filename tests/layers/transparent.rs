//! The layer changes nothing of a response: not a byte on the wire, and nothing that the wrapped
//! service or body says to who polls it.

use std::{
    convert::Infallible,
    fmt, io,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
};

use axum::{
    Json, Router,
    body::Body,
    extract::Request,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Redirect, Response, Sse, sse::Event},
    routing::get,
};
use axum_defer::{DeferLayer, try_defer};
use bytes::Bytes;
use futures_util::{FutureExt, stream};
use http::{HeaderMap, Version};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::{BodyExt, Full};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tower::{Layer, Service, ServiceExt, service_fn, util::MapRequestLayer};
use tower_http::{services::ServeDir, set_header::SetResponseHeaderLayer};

use crate::support::{
    self, Server, data, directory_with, frames, hello_and_then, in_time, stream_of, trailers,
};

const PATHS: &[&str] = &[
    "/text",
    "/json",
    "/empty",
    "/large",
    "/204",
    "/304",
    "/404",
    "/500",
    "/redirect",
    "/cookies",
    "/stream",
    "/length",
    "/length-0",
    "/sse",
    "/trailers",
    "/only-trailers",
    "/empty-frames",
    "/files/file.bin",
    "/none",
    "/bare/full",
    "/bare/stream",
    "/bare/trailers",
];

/// These end a connection over HTTP/1.
const FAILING_PATHS: &[&str] = &["/body-error", "/short", "/panic", "/body-panic"];

fn routes() -> Router {
    let directory = directory_with("transparent", "file.bin", &[7; 100_000]);
    let status = |code: u16| get(move || async move { StatusCode::from_u16(code).unwrap() });
    Router::new()
        .route("/text", get(async || "a reply"))
        .route("/json", get(async || Json([("key", 1)])))
        .route("/empty", get(async || ()))
        .route("/large", get(async || Bytes::from(vec![b'x'; 300_000])))
        .route("/204", status(204))
        .route("/304", status(304))
        .route("/404", status(404))
        .route(
            "/500",
            get(async || (StatusCode::INTERNAL_SERVER_ERROR, "oops")),
        )
        .route("/redirect", get(async || Redirect::permanent("/text")))
        .route(
            "/cookies",
            get(async || {
                let mut response = "two".into_response();
                for cookie in ["a=1", "b=2"] {
                    let value = HeaderValue::from_static(cookie);
                    response.headers_mut().append(header::SET_COOKIE, value);
                }
                response
            }),
        )
        .route("/stream", get(async || stream_of(["hello", "world"])))
        .route(
            "/length",
            get(async || {
                (
                    [(header::CONTENT_LENGTH, "10")],
                    stream_of(["hello", "world"]),
                )
            }),
        )
        .route(
            "/length-0",
            get(async || ([(header::CONTENT_LENGTH, "0")], stream_of([]))),
        )
        .route(
            "/sse",
            get(async || {
                let events = ["one", "two"].map(|text| Event::default().data(text));
                Sse::new(stream::iter(events.map(Ok::<_, Infallible>)))
            }),
        )
        .route(
            "/trailers",
            get(async || {
                (
                    [("trailer", "checksum")],
                    frames([data("hello"), trailers()]),
                )
            }),
        )
        .route(
            "/only-trailers",
            get(async || ([("trailer", "checksum")], frames([trailers()]))),
        )
        .route(
            "/empty-frames",
            get(async || frames([data(""), data("hello"), data(""), data("world"), data("")])),
        )
        .route(
            "/body-error",
            get(async || hello_and_then(|| [Err(io::Error::other("on purpose"))])),
        )
        .route(
            "/body-panic",
            get(async || hello_and_then(|| -> [_; 0] { panic!("on purpose, in the body") })),
        )
        .route(
            "/short",
            get(async || ([(header::CONTENT_LENGTH, "10")], hello_and_then(|| []))),
        )
        .route("/panic", get(panics))
        .nest_service("/files", ServeDir::new(directory))
}

async fn panics() {
    panic!("on purpose, in the handler");
}

/// Bodies as they are, without axum's handling of HEAD.
fn bare(path: &str) -> Response {
    Response::new(match path {
        "/bare/full" => Body::new(Full::new(Bytes::from_static(b"full"))),
        "/bare/stream" => stream_of(["hello", "world"]),
        _ => frames([data("hello"), trailers()]),
    })
}

#[derive(Clone, Copy, Debug)]
enum Under {
    NoLayer,
    ALayer,
    ALayerWithCallbacks,
}

async fn server(under: Under) -> Server {
    let routes = routes();
    let service = service_fn(move |request: Request| {
        let path = request.uri().path();
        let bare = path.starts_with("/bare/").then(|| bare(path));
        let routes = routes.clone();
        async move {
            match bare {
                Some(response) => Ok(response),
                None => routes.oneshot(request).await,
            }
        }
    });
    let defers = matches!(under, Under::ALayerWithCallbacks);
    let service = MapRequestLayer::new(move |request: Request| {
        if defers {
            assert!(try_defer(async {}).is_ok());
            assert!(
                try_defer(async {})
                    .map(|callback| callback.always())
                    .is_ok()
            );
        }
        request
    })
    .layer(service);
    // hyper leaves a date alone that is there.
    let date = HeaderValue::from_static("Thu, 01 Jan 1970 00:00:00 GMT");
    let service = SetResponseHeaderLayer::overriding(header::DATE, date).layer(service);
    match under {
        Under::NoLayer => Server::start(service).await,
        _ => {
            let service = DeferLayer::new().layer(service);
            Server::start(service.map_response(|response| response.map(Body::new))).await
        }
    }
}

async fn all_servers() -> (Server, [(Under, Server); 2]) {
    let layered = [Under::ALayer, Under::ALayerWithCallbacks];
    let [first, second] = layered.map(async |under| (under, server(under).await));
    (server(Under::NoLayer).await, [first.await, second.await])
}

/// All that the server writes on one connection.
async fn written(server: &Server, requests: &str) -> Vec<u8> {
    let mut client = server.raw().await;
    client.send(requests).await;
    in_time(client.read_to_end()).await
}

#[tokio::test]
async fn http1_responses_are_identical() {
    let (plain, layered) = all_servers().await;
    let mut compared = 0;
    for version in ["1.0", "1.1"] {
        for method in ["GET", "HEAD", "OPTIONS"] {
            for path in PATHS {
                let request = format!(
                    "{method} {path} HTTP/{version}\r\nhost: localhost\r\nte: trailers\r\n"
                );
                let closes = format!("{request}connection: close\r\n\r\n");
                let kept_alive = format!("{request}connection: keep-alive\r\n\r\n{closes}");
                for requests in [&closes, &kept_alive] {
                    let expected = written(&plain, requests).await;
                    assert!(expected.starts_with(b"HTTP/1."), "{requests}");
                    for (under, server) in &layered {
                        let got = written(server, requests).await;
                        assert!(
                            got == expected,
                            "{under:?}: {requests}\n{}\n{}",
                            String::from_utf8_lossy(&expected),
                            String::from_utf8_lossy(&got)
                        );
                        compared += 1;
                    }
                }
            }
        }
    }
    assert_eq!(compared, 2 * 2 * 3 * 2 * PATHS.len());
    for path in FAILING_PATHS {
        let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n");
        let expected = written(&plain, &request).await;
        for (under, server) in &layered {
            assert_eq!(
                written(server, &request).await,
                expected,
                "{under:?} {path}"
            );
        }
    }
}

/// One frame of the answer: type, flags and payload.
type WireFrame = (u8, u8, Vec<u8>);

const DATA: u8 = 0;
const RST_STREAM: u8 = 3;
const END_STREAM: u8 = 1;

fn http2_frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// The frames that the server sends on the stream of one request, as they are on the wire.
async fn http2_frames(server: &Server, method: &str, path: &str) -> Vec<WireFrame> {
    let mut stream = tokio::net::TcpStream::connect(server.address)
        .await
        .unwrap();
    let mut request = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    // INITIAL_WINDOW_SIZE, and the connection's window: nothing has to wait for the client.
    let window = 0x7fff_0000_u32.to_be_bytes();
    request.extend(http2_frame(4, 0, 0, &[&[0, 4], &window[..]].concat()));
    request.extend(http2_frame(8, 0, 0, &window));
    // HPACK without its tables: `:method`, `:scheme: http`, `:path`, `:authority`.
    let mut headers = vec![0x02, u8::try_from(method.len()).unwrap()];
    headers.extend(method.as_bytes());
    headers.extend([0x86, 0x04, u8::try_from(path.len()).unwrap()]);
    headers.extend(path.as_bytes());
    headers.extend([0x01, 9]);
    headers.extend(b"localhost");
    request.extend(http2_frame(1, 0x4 | END_STREAM, 1, &headers));
    stream.write_all(&request).await.unwrap();
    let mut frames = Vec::new();
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await.unwrap();
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        stream.read_exact(&mut payload).await.unwrap();
        let (kind, flags) = (head[3], head[4]);
        if head[5..] != [0, 0, 0, 1] {
            continue;
        }
        frames.push((kind, flags, payload));
        let ends = matches!(kind, 0 | 1) && flags & END_STREAM != 0;
        if ends || kind == RST_STREAM {
            return frames;
        }
    }
}

#[tokio::test]
async fn http2_responses_are_identical() {
    let (plain, layered) = all_servers().await;
    for method in ["GET", "HEAD", "OPTIONS"] {
        for path in PATHS.iter().chain(FAILING_PATHS) {
            let expected = in_time(http2_frames(&plain, method, path)).await;
            for (under, server) in &layered {
                let got = in_time(http2_frames(server, method, path)).await;
                assert_eq!(got, expected, "{under:?}: {method} {path}");
            }
            if *path == "/large" && method == "GET" {
                let length: usize = expected
                    .iter()
                    .filter(|(kind, ..)| *kind == DATA)
                    .map(|(_, _, payload)| payload.len())
                    .sum();
                assert_eq!(length, 300_000);
            }
        }
    }
}

/// A body that says what a test tells it to, and notes what it is asked.
struct Scripted {
    steps: std::collections::VecDeque<Step>,
    bounds: (u64, Option<u64>),
    is_end_stream: bool,
    seen: Arc<Seen>,
}

enum Step {
    Pending,
    Frame(Frame<Chunk>),
    Fails(Failed),
}

#[derive(Default)]
struct Seen {
    polls: Mutex<usize>,
    waker: Mutex<Option<Waker>>,
}

/// Neither `Bytes` nor an error of the standard library.
#[derive(Debug)]
struct Chunk(Bytes);

impl bytes::Buf for Chunk {
    fn remaining(&self) -> usize {
        self.0.remaining()
    }
    fn chunk(&self) -> &[u8] {
        self.0.chunk()
    }
    fn advance(&mut self, count: usize) {
        self.0.advance(count);
    }
}

#[derive(Debug, PartialEq)]
struct Failed(u32);

impl std::fmt::Display for Failed {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "failed with {}", self.0)
    }
}

impl http_body::Body for Scripted {
    type Data = Chunk;
    type Error = Failed;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Chunk>, Failed>>> {
        *self.seen.polls.lock().unwrap() += 1;
        match self.steps.pop_front() {
            Some(Step::Pending) => {
                *self.seen.waker.lock().unwrap() = Some(context.waker().clone());
                Poll::Pending
            }
            Some(Step::Frame(frame)) => Poll::Ready(Some(Ok(frame))),
            Some(Step::Fails(error)) => Poll::Ready(Some(Err(error))),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.is_end_stream
    }

    fn size_hint(&self) -> SizeHint {
        size_hint(self.bounds)
    }
}

fn size_hint((lower, upper): (u64, Option<u64>)) -> SizeHint {
    let mut hint = SizeHint::new();
    hint.set_lower(lower);
    if let Some(upper) = upper {
        hint.set_upper(upper);
    }
    hint
}

/// The body as it comes out of the layer.
async fn layered(
    version: Version,
    steps: impl IntoIterator<Item = Step>,
    hint: SizeHint,
    is_end_stream: bool,
) -> (
    impl http_body::Body<Data = Chunk, Error = Failed> + Unpin,
    Arc<Seen>,
) {
    let seen = Arc::new(Seen::default());
    let mut body = Some(Scripted {
        steps: steps.into_iter().collect(),
        bounds: (hint.lower(), hint.upper()),
        is_end_stream,
        seen: seen.clone(),
    });
    let service = service_fn(|_: http::Request<()>| {
        let body = body.take().unwrap();
        async move { Ok::<_, Infallible>(Response::new(body)) }
    });
    let mut request: http::Request<()> = support::get("/");
    *request.version_mut() = version;
    let response = DeferLayer::new()
        .layer(service)
        .oneshot(request)
        .await
        .unwrap();
    (response.into_body(), seen)
}

#[tokio::test]
async fn size_hint_and_end_are_unchanged() {
    for bounds in [(0, None), (0, Some(0)), (7, Some(7)), (3, Some(9))] {
        for is_end_stream in [false, true] {
            let hint = size_hint(bounds);
            let (body, seen) = layered(Version::HTTP_11, [], hint, is_end_stream).await;
            let hint = body.size_hint();
            assert_eq!((hint.lower(), hint.upper()), bounds);
            assert_eq!(body.is_end_stream(), is_end_stream);
            assert_eq!(*seen.polls.lock().unwrap(), 0, "nobody has polled it yet");
        }
    }
}

#[tokio::test]
async fn frames_pass_one_poll_for_one() {
    for version in [Version::HTTP_10, Version::HTTP_11, Version::HTTP_2] {
        let mut headers = HeaderMap::new();
        headers.insert("checksum", HeaderValue::from_static("42"));
        let steps = [
            Step::Frame(Frame::data(Chunk(Bytes::from_static(b"hello")))),
            Step::Pending,
            Step::Frame(Frame::data(Chunk(Bytes::new()))),
            Step::Fails(Failed(7)),
            Step::Frame(Frame::trailers(headers.clone())),
        ];
        let (mut body, seen) = layered(version, steps, SizeHint::default(), false).await;
        let mut next = || body.frame().now_or_never();
        let frame = next().unwrap().unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap().0, "hello");
        assert!(next().is_none(), "pending");
        assert_eq!(*seen.polls.lock().unwrap(), 2);
        let frame = next().unwrap().unwrap().unwrap();
        assert!(frame.into_data().unwrap().0.is_empty());
        assert_eq!(next().unwrap().unwrap().unwrap_err(), Failed(7));
        let frame = next().unwrap().unwrap().unwrap();
        assert_eq!(frame.into_trailers().unwrap(), headers);
        assert!(next().unwrap().is_none());
        assert_eq!(*seen.polls.lock().unwrap(), 6);
    }
}

#[tokio::test]
async fn pending_body_wakes_its_poller() {
    let (mut body, seen) = layered(
        Version::HTTP_11,
        [Step::Pending],
        SizeHint::default(),
        false,
    )
    .await;
    let mut task = counting_waker::spawn();
    assert!(
        task.poll(|context| Pin::new(&mut body).poll_frame(context))
            .is_pending()
    );
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    assert_eq!((*seen.polls.lock().unwrap(), task.woken()), (1, 0));
    seen.waker.lock().unwrap().take().unwrap().wake();
    assert_eq!(task.woken(), 1);
}

/// A waker that counts.
mod counting_waker {
    use std::{
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering::SeqCst},
        },
        task::{Context, Wake, Waker},
    };

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, SeqCst);
        }
    }

    pub(crate) struct Task(Arc<Count>);

    pub(crate) fn spawn() -> Task {
        Task(Arc::default())
    }

    impl Task {
        pub(crate) fn poll<T>(&mut self, poll: impl FnOnce(&mut Context<'_>) -> T) -> T {
            poll(&mut Context::from_waker(&Waker::from(self.0.clone())))
        }

        pub(crate) fn woken(&self) -> usize {
            self.0.0.load(SeqCst)
        }
    }
}

/// A service that is ready when a test says so, and fails as it is told to.
struct Told(Poll<Result<(), Failed>>);

impl Service<http::Request<()>> for Told {
    type Response = http::Response<Scripted>;
    type Error = Failed;
    type Future = std::future::Ready<Result<Self::Response, Failed>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failed>> {
        std::mem::replace(&mut self.0, Poll::Pending)
    }

    fn call(&mut self, _: http::Request<()>) -> Self::Future {
        std::future::ready(Err(Failed(2)))
    }
}

#[tokio::test]
async fn readiness_and_errors_are_unchanged() {
    let mut context = Context::from_waker(Waker::noop());
    let mut service = DeferLayer::new().layer(Told(Poll::Pending));
    assert!(service.poll_ready(&mut context).is_pending());
    service.get_mut().0 = Poll::Ready(Err(Failed(1)));
    assert_eq!(
        service.poll_ready(&mut context),
        Poll::Ready(Err(Failed(1)))
    );
    service.get_mut().0 = Poll::Ready(Ok(()));
    assert_eq!(service.poll_ready(&mut context), Poll::Ready(Ok(())));
    assert_eq!(
        service.call(support::get("/")).await.unwrap_err(),
        Failed(2)
    );
    assert!(service.get_ref().0.is_pending());
    assert!(service.into_inner().0.is_pending());
}

#[tokio::test]
async fn head_is_unchanged() {
    #[derive(Clone, Debug, PartialEq)]
    struct Marker(u32);

    let service = service_fn(async |request: Request| {
        assert_eq!(request.extensions().get(), Some(&Marker(1)));
        let response = Response::builder()
            .status(418)
            .version(Version::HTTP_3)
            .header("a", "1")
            .header("a", "2")
            .extension(Marker(2));
        Ok::<_, Infallible>(response.body(Body::empty()).unwrap())
    });
    let mut request: Request = support::get("/");
    request.extensions_mut().insert(Marker(1));
    let response = DeferLayer::new()
        .layer(service)
        .oneshot(request)
        .await
        .unwrap();
    assert_eq!(
        (response.status().as_u16(), response.version()),
        (418, Version::HTTP_3)
    );
    let values: Vec<_> = response.headers().get_all("a").iter().collect();
    assert_eq!(values, ["1", "2"]);
    assert_eq!(response.headers().len(), 2);
    assert_eq!(response.extensions().get(), Some(&Marker(2)));
    assert_eq!(response.extensions().len(), 1);
}

impl fmt::Debug for Scripted {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Scripted")
    }
}

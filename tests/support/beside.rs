//! An app with a `DeferLayer` and another layer inside or outside of it.
#![allow(dead_code, reason = "each test file uses only a part of it")]

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::Request,
    http::HeaderMap,
    routing::{get, post},
};
use axum_defer::{CallbackInfo, Completion, DeferLayer, DeferObserver, before_response};
use bytes::Bytes;
use http_body::Frame;
use tower::util::MapRequestLayer;

use crate::support::{Events, Log, RawResponse, Server, What, data, frames, in_time, stream_of};

/// The position of the other layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Inside,
    Outside,
}

/// The completion of a request, as the `DeferLayer` saw it.
#[derive(Debug)]
pub(crate) struct Seen {
    /// `true` if the callback with the default rule ran.
    pub(crate) ran: bool,
    pub(crate) completion: Completion,
}

/// The request of the last callback, as observers receive it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) path: String,
    pub(crate) route: Option<String>,
    pub(crate) id: Option<String>,
}

#[derive(Clone, Default)]
pub(crate) struct Teller(Arc<Mutex<Told>>);

impl Teller {
    pub(crate) fn told(&self) -> Told {
        self.0.lock().unwrap().clone()
    }
}

impl DeferObserver for Teller {
    fn started(&self, callback: &CallbackInfo<'_>, _: Duration) {
        let request = callback.request().unwrap();
        *self.0.lock().unwrap() = Told {
            path: request.path().to_owned(),
            route: request.route().map(str::to_owned),
            id: request.id().map(str::to_owned),
        };
    }
}

pub(crate) const TEXT: &str = "a reply that is long enough to be compressed. ";

fn routes() -> Router {
    Router::new()
        .route("/text", get(async || TEXT.repeat(9)))
        .route("/stream", get(async || stream_of(["hello", "world"])))
        .route("/panic", get(panics))
        .route("/never", get(std::future::pending::<()>))
        .route("/upload", post(async |body: Bytes| body.len().to_string()))
        .route("/order", get(order))
        .route("/call", get(call))
}

async fn panics() {
    panic!("on purpose, in the handler");
}

async fn order() -> &'static str {
    before_response(async { Err("the database is gone") }).name("commit");
    "thank you"
}

/// Returns a gRPC response that fails in its trailers.
async fn call() -> Body {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", "2".parse().unwrap());
    frames([data("message"), Ok(Frame::trailers(trailers))])
}

/// An app with both layers. Each request defers two callbacks between them.
pub(crate) struct Beside {
    pub(crate) app: Router,
    layer: DeferLayer,
    events: Events,
    told: Teller,
}

impl Beside {
    pub(crate) fn new(
        place: Place,
        layer: DeferLayer,
        add_other: impl FnOnce(Router) -> Router,
    ) -> Self {
        let (log, events) = Log::new();
        let told = Teller::default();
        let layer = layer.observer(log.clone()).observer(told.clone());
        let defers = MapRequestLayer::new(move |request: Request| {
            log.defer("default");
            log.defer("always").always();
            request
        });
        let app = match place {
            Place::Inside => add_other(routes()).layer(defers).layer(layer.clone()),
            Place::Outside => add_other(routes().layer(defers).layer(layer.clone())),
        };
        Self {
            app,
            layer,
            events,
            told,
        }
    }

    /// Sends a request like `POST /path\nheader: value\n\nbody`.
    pub(crate) async fn ask(&mut self, request: &str) -> (RawResponse, Option<Seen>) {
        let server = Server::start(self.app.clone()).await;
        let response = send(&server, request).await;
        (response, self.seen().await)
    }

    pub(crate) async fn seen(&mut self) -> Option<Seen> {
        in_time(self.layer.handle().wait_idle()).await;
        let events = self.events.so_far();
        let mut events = events.into_iter();
        let (name, default) = events.next()?;
        assert_eq!(name, "default");
        let (name, always) = events.next().unwrap();
        assert_eq!(name, "always");
        assert!(matches!(always, What::Ran(_)), "{always:?}");
        assert_eq!(events.next(), None);
        Some(Seen {
            ran: matches!(default, What::Ran(_)),
            completion: always.completion(),
        })
    }

    pub(crate) fn told(&self) -> Told {
        self.told.told()
    }
}

pub(crate) async fn send(server: &Server, request: &str) -> RawResponse {
    let (head, body) = request.split_once("\n\n").unwrap_or((request, ""));
    let (line, headers) = head.split_once('\n').unwrap_or((head, ""));
    let mut message = format!("{line} HTTP/1.1\r\nhost: localhost\r\n");
    for header in headers.lines() {
        message += &format!("{header}\r\n");
    }
    if !body.is_empty() {
        message += &format!("content-length: {}\r\n", body.len());
    }
    let mut client = server.raw().await;
    client.send(&format!("{message}\r\n{body}")).await;
    in_time(client.response(false)).await.unwrap()
}

pub(crate) async fn ask(
    place: Place,
    add_other: impl FnOnce(Router) -> Router,
    request: &str,
) -> (RawResponse, Option<Seen>) {
    let mut beside = Beside::new(place, DeferLayer::new(), add_other);
    beside.ask(request).await
}

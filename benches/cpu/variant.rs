//! The servers under measurement: each is a server, a layer, a handler, and a subscriber.

use std::{fmt::Debug, future::pending, io, str::FromStr};

use axum::{Router, serve::Listener};
use axum_defer::DeferLayer;
use tower_http::trace::{DefaultMakeSpan, TraceLayer};
use tracing::Level;

use crate::{floor::FloorLayer, hand_made::hand_made, handler, no_op::NoOpLayer};

/// Parsed from `SERVER,LAYER,HANDLER,SUBSCRIBER`:
///
/// - servers: `axum`, `axum_defer`, and each with `-graceful`
/// - layers: `none`, `no_op`, `floor`, `hand_made`, `defer`, `defer-handle`, `defer-around`,
///   `defer-observer`
/// - handlers: see [`handler::router`]
/// - subscribers: `none`, `info` (writes to a sink), and `info-span` (with a request span as well)
pub(crate) struct Variant {
    server: String,
    layer: String,
    handler: String,
    subscriber: String,
}

impl FromStr for Variant {
    type Err = String;

    fn from_str(variant: &str) -> Result<Self, String> {
        let parts: Vec<String> = variant.split(',').map(str::to_owned).collect();
        match <[String; 4]>::try_from(parts) {
            Ok([server, layer, handler, subscriber]) => Ok(Self {
                server,
                layer,
                handler,
                subscriber,
            }),
            Err(_) => Err(format!("not SERVER,LAYER,HANDLER,SUBSCRIBER: {variant}")),
        }
    }
}

impl Variant {
    pub(crate) fn callbacks(&self) -> usize {
        handler::callbacks(&self.handler)
    }

    /// Installs the subscriber.
    pub(crate) fn subscribe(&self) {
        if self.subscriber != "none" {
            tracing_subscriber::fmt()
                .with_max_level(Level::INFO)
                .with_writer(io::sink)
                .init();
        }
    }

    pub(crate) async fn serve<L>(&self, listener: L)
    where
        L: Listener<Addr: Debug>,
    {
        let router = handler::router(&self.handler).expect("a handler of this name");
        if self.layer == "defer-around" {
            return self.serve_around(listener, router).await;
        }
        let layer = DeferLayer::new();
        // Held until the server ends, as in an app that drains or reads counts.
        let _handle = (self.layer == "defer-handle").then(|| layer.handle());
        let router = match self.layer.as_str() {
            "none" => router,
            "no_op" => router.layer(NoOpLayer),
            "floor" => router.layer(FloorLayer),
            "hand_made" => hand_made(router),
            "defer" | "defer-handle" => router.layer(layer),
            "defer-observer" => router.layer(layer.observer(Ignore)),
            other => panic!("no layer {other}"),
        };
        let router = match self.subscriber.as_str() {
            "info-span" => {
                let span = DefaultMakeSpan::new().level(Level::INFO);
                router.layer(TraceLayer::new_for_http().make_span_with(span))
            }
            _ => router,
        };
        match self.server.as_str() {
            "axum" => axum::serve(listener, router).await.expect("no error"),
            "axum-graceful" => axum::serve(listener, router)
                .with_graceful_shutdown(pending())
                .await
                .expect("no error"),
            "axum_defer" => {
                let _ = axum_defer::serve(listener, router).await;
            }
            "axum_defer-graceful" => {
                let _ = axum_defer::serve(listener, router)
                    .with_graceful_shutdown(pending())
                    .await;
            }
            other => panic!("no server {other}"),
        }
    }

    async fn serve_around<L>(&self, listener: L, router: Router)
    where
        L: Listener<Addr: Debug>,
    {
        let app = DeferLayer::new().layer(router);
        match self.server.as_str() {
            "axum" => axum::serve(listener, app).await.expect("no error"),
            "axum_defer" => {
                let _ = axum_defer::serve(listener, app).await;
            }
            "axum_defer-graceful" => {
                let _ = axum_defer::serve(listener, app)
                    .with_graceful_shutdown(pending())
                    .await;
            }
            other => panic!("no server {other} around a router"),
        }
    }
}

/// An observer without methods of its own.
struct Ignore;

impl axum_defer::DeferObserver for Ignore {}

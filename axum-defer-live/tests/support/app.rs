//! An app whose handler defers a callback chosen by the path.

use std::{error::Error, fmt, sync::Once};

use axum::{Router, extract::Path, routing::get};
use axum_defer::{DeferLayer, defer};
use axum_defer_live::Live;
use serde_json::Value;

use crate::support::{get as get_text, get_json, in_time};

pub(crate) const PANIC: &str = "planned by the test";

pub(crate) struct App {
    pub(crate) router: Router,
    pub(crate) layer: DeferLayer,
}

impl App {
    /// An app with the page at `/live`.
    pub(crate) fn new(live: &Live) -> Self {
        silence_planned_panics();
        let layer = DeferLayer::new().observer(live.clone());
        let router = Router::new()
            .route("/{what}", get(handler))
            .layer(layer.clone())
            .nest("/live", live.loopback_router());
        Self { router, layer }
    }

    pub(crate) async fn get(&self, path: &str) -> String {
        get_text(&self.router, path).await
    }

    /// Sends requests one after the other, waits for their callbacks, and returns `snapshot.json`.
    pub(crate) async fn snapshot_after(&self, paths: &[&str]) -> Value {
        for path in paths {
            self.get(path).await;
            in_time(self.layer.handle().wait_idle()).await;
        }
        in_time(self.layer.handle().wait_idle()).await;
        get_json(&self.router, "/live/snapshot.json").await
    }
}

async fn handler(Path(what): Path<String>) -> &'static str {
    match &*what {
        "error" => {
            let cause = Some(Box::new(MailError(None)));
            defer(async { Err(MailError(cause)) }).name("mail");
        }
        "long" => drop(defer(async { Err("ü".repeat(10_000)) }).name("n".repeat(1_000))),
        "panic" => drop(defer(async { panic!("{PANIC}") })),
        "display-panic" => drop(defer(async { Err(DisplayPanic) })),
        "many" => (0..150).for_each(|_| drop(defer(async {}))),
        "skipped" => {
            defer(async {}).name("mail").when(|_| false);
        }
        "cancelled" => assert!(defer(async {}).name("mail").cancel()),
        _ => drop(defer(async {}).name("mail")),
    }
    "hello"
}

#[derive(Debug)]
struct MailError(Option<Box<MailError>>);

impl fmt::Display for MailError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(if self.0.is_some() {
            "no mail"
        } else {
            "no network"
        })
    }
}

impl Error for MailError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.as_deref().map(|source| source as _)
    }
}

#[derive(Debug)]
struct DisplayPanic;

impl fmt::Display for DisplayPanic {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        panic!("{PANIC}")
    }
}

impl Error for DisplayPanic {}

fn silence_planned_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if info
                .payload()
                .downcast_ref::<String>()
                .is_none_or(|text| text != PANIC)
            {
                hook(info);
            }
        }));
    });
}

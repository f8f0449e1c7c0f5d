//! The span of a callback is closed before anybody is told that the callback is over.
#![cfg(feature = "tracing")]

use std::sync::{Arc, Mutex};

use axum_defer::{DeferHandle, DeferLayer, defer};
use tracing::{Instrument, Subscriber, info_span, span};
use tracing_subscriber::{
    filter::LevelFilter,
    layer::{Context, Layer, SubscriberExt},
    registry::LookupSpan,
};

use crate::support::subscriber::listen;

/// Notes what is running whenever the span of a callback closes.
struct Closes {
    deferred: DeferHandle,
    running: Arc<Mutex<Vec<usize>>>,
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Closes {
    fn on_close(&self, id: span::Id, context: Context<'_, S>) {
        if context
            .metadata(&id)
            .is_some_and(|span| span.name() == "deferred")
        {
            self.running.lock().unwrap().push(self.deferred.running());
        }
    }
}

#[tokio::test]
async fn spans_are_closed_when_idle() {
    let layer = DeferLayer::new();
    let running = Arc::new(Mutex::new(Vec::new()));
    // As many subscribers do, this one stops at the level that the spans have.
    let subscriber = tracing_subscriber::registry()
        .with(LevelFilter::INFO)
        .with(Closes {
            deferred: layer.handle(),
            running: running.clone(),
        });
    let _default = listen(subscriber);

    // Without an enabled span around it, the spans of callbacks are below the level.
    layer
        .scope(async {
            defer(async {});
            defer(async { tokio::task::yield_now().await });
            defer(async { Err::<(), _>("the disk is full") });
        })
        .instrument(info_span!("job"))
        .await;

    assert_eq!(*running.lock().unwrap(), [1, 1, 1]);
}

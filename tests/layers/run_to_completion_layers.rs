//! Handlers that are run to completion, beside layers that give up or count requests: the rows of the
//! table in `docs/layer-order.md` that say so.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use axum::{Router, body::Body, http::StatusCode, response::Response, routing::get};
use axum_defer::{DeferLayer, Delivery};
use futures_util::FutureExt;
use tower::{ServiceExt, limit::ConcurrencyLimitLayer};
use tower_http::timeout::TimeoutLayer;

use crate::support::{self, Log, gate::Gate, in_time};

/// A route whose handler defers, and waits for the gate.
fn gated(gate: &Gate, log: &Log) -> Router {
    let (gate, log) = (gate.clone(), log.clone());
    let handler = async move || {
        log.defer("default");
        gate.clone().pass().await;
    };
    Router::new().route("/", get(handler))
}

/// Lets everything go on that can: the runtime has one thread.
async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_concurrency_limit_outside_loses_sight_of_a_handler_whose_client_has_gone() {
    for is_inside in [true, false] {
        let (gate, mut arrivals) = Gate::new();
        let (log, _events) = Log::new();
        let layer = DeferLayer::new().run_to_completion();
        let limit = ConcurrencyLimitLayer::new(1);
        let app = match is_inside {
            true => gated(&gate, &log).layer(limit).layer(layer.clone()),
            false => gated(&gate, &log).layer(layer.clone()).layer(limit),
        };
        // With its state, or axum would apply the layers anew to each request.
        let app: Router = app.with_state(());
        let get = || Box::pin(app.clone().oneshot(support::get::<Body>("/")));

        let mut first = get();
        assert!(first.as_mut().now_or_never().is_none());
        in_time(arrivals.recv()).await.unwrap();
        drop(first);
        let mut second = get();
        assert!(second.as_mut().now_or_never().is_none());
        settle().await;
        assert!(second.as_mut().now_or_never().is_none());
        settle().await;
        assert_eq!(arrivals.try_recv().is_ok(), !is_inside);

        gate.open();
        assert_eq!(in_time(second).await.unwrap().status(), 200);
        in_time(layer.handle().wait_idle()).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_time_out_outside_lets_the_handler_go_on_and_one_inside_ends_it() {
    let limit = Duration::from_secs(1);
    for is_inside in [true, false] {
        let (gate, mut arrivals) = Gate::new();
        let (log, mut events) = Log::new();
        let layer = DeferLayer::new().run_to_completion().observer(log.clone());
        let time_out = TimeoutLayer::with_status_code(StatusCode::REQUEST_TIMEOUT, limit);
        let app = match is_inside {
            true => gated(&gate, &log).layer(time_out).layer(layer.clone()),
            false => gated(&gate, &log).layer(layer.clone()).layer(time_out),
        };
        let response: Response = app.oneshot(support::get::<Body>("/")).await.unwrap();
        assert_eq!(response.status(), StatusCode::REQUEST_TIMEOUT);
        drop(response);
        in_time(arrivals.recv()).await.unwrap();
        gate.open();
        in_time(layer.handle().wait_idle()).await;

        let (_, what) = events.next().await;
        let ran = matches!(what, support::What::Ran(_));
        let completion = what.completion();
        let how = (ran, completion.status(), completion.delivery());
        match is_inside {
            true => assert_eq!((how.0, how.1), (false, Some(StatusCode::REQUEST_TIMEOUT))),
            // The client has a 408, and what the handler deferred runs.
            false => assert_eq!(how, (true, Some(StatusCode::OK), Delivery::Aborted)),
        }
    }
}

//! The bounds of the record, and the counts of what exceeds them.

use std::sync::Arc;

use axum::{Router, extract::Path, http::StatusCode, routing};
use axum_defer::{DeferLayer, defer};
use axum_defer_live::Live;
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::{
    app::App,
    support::{empty, get, get_json, get_with, in_time, send},
};

#[path = "support/app.rs"]
mod app;
mod support;

fn len(json: &Value, key: &str) -> usize {
    json[key].as_array().unwrap().len()
}

#[tokio::test]
async fn default_limits_hold() {
    let app = App::new(&Live::new());
    for number in 0..1_003 {
        let scope = async {
            let result = if number < 203 { Err("no") } else { Ok(()) };
            defer(async move { result }).name(format!("name {number}"));
        };
        in_time(app.layer.scope(scope)).await;
    }
    let json = app.snapshot_after(&[]).await;
    assert_eq!(len(&json, "requests"), 1_000);
    assert_eq!(len(&json, "failures"), 200);
    assert_eq!(len(&json, "names"), 101, "100 names, and the others");
    assert_eq!(json["counts"]["requests_evicted"], 3);
    assert_eq!(json["counts"]["failures_evicted"], 3);
    let page = app.get("/live/view").await;
    let text = "Keeps the last 1000 requests that deferred something, and 200 failures.";
    assert!(page.contains(text));
}

#[tokio::test]
async fn exceeded_limits_evict_and_count() {
    let live = Live::new().max_requests(3).max_failures(2).max_names(1);
    let app = App::new(&live);
    let paths = ["/error", "/error", "/error", "/a", "/b", "/many"];
    let json = app.snapshot_after(&paths).await;
    assert_eq!(len(&json, "requests"), 3);
    assert_eq!(len(&json, "failures"), 2);
    assert_eq!(len(&json, "names"), 2, "one name, and the others");
    for (key, count) in [
        ("registered", 155),
        ("pending", 0),
        ("running", 0),
        ("ok", 152),
        ("requests_evicted", 3),
        ("failures_evicted", 1),
        ("callbacks_not_recorded", 50),
    ] {
        assert_eq!(json["counts"][key], count, "{key}");
    }
    assert_eq!(json["requests"][0]["callbacks_not_recorded"], 50);
    let page = app.get("/live/view").await;
    assert!(page.contains("<strong>3</strong> older requests were evicted."));
    assert!(page.contains("<strong>1</strong> older failures were evicted."));
    assert!(page.contains("<strong>50</strong> callbacks were counted but not recorded"));
}

#[tokio::test]
async fn unfinished_request_is_not_evicted() {
    let live = Live::new().max_requests(2);
    let release = Arc::new(Notify::new());
    let layer = DeferLayer::new().observer(live.clone());
    let handle = layer.handle();
    let released = release.clone();
    let handler = async move |Path(what): Path<String>| {
        if what == "slow" {
            defer(async move { released.notified().await }).name("export");
        }
        defer(async {}).name("mail");
    };
    let app = Router::new()
        .route("/{what}", routing::get(handler))
        .layer(layer)
        .nest("/live", live.loopback_router());
    get(&app, "/slow").await;
    for _ in 0..5 {
        get(&app, "/quick").await;
        while handle.pending() + handle.running() > 2 {
            tokio::task::yield_now().await;
        }
    }
    let json = get_json(&app, "/live/snapshot.json").await;
    for (key, count) in [
        ("pending", 1),
        ("running", 1),
        ("ok", 5),
        ("requests_evicted", 4),
    ] {
        assert_eq!(json["counts"][key], count, "{key}");
    }
    assert_eq!(json["requests"][0]["path"], "/quick");
    assert_eq!(json["requests"][1]["path"], "/slow");
    let page = get(&app, "/live/view").await;
    assert!(page.contains("running for") && page.contains("queued for"));
    release.notify_one();
    in_time(handle.wait_idle()).await;
    let json = get_json(&app, "/live/snapshot.json").await;
    assert_eq!(json["unfinished"], json!([]));
}

#[tokio::test]
async fn seventeenth_viewer_gets_503() {
    let app = empty();
    let connect = async || send(&app, get_with("/admin/deferred/events", &[])).await;
    let mut viewers = Vec::new();
    for _ in 0..16 {
        let response = connect().await;
        assert_eq!(response.status(), StatusCode::OK);
        viewers.push(response);
    }
    let refused = connect().await;
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    viewers.pop();
    assert_eq!(connect().await.status(), StatusCode::OK);
}

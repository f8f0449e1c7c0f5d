//! Request context in callbacks: `cargo run --example multi_tenant`.
//!
//! A callback runs on another task after the request. Here, it needs the tenant, which comes from a
//! header. The handler moves it into the callback, or `DeferLayer::wrap` sets a task-local for code
//! that has no access to the request.

use std::{
    collections::BTreeMap,
    error::Error,
    sync::{Arc, Mutex},
};

use axum::{
    Extension, Router,
    body::Body,
    extract::{Path, Request, State},
    http::StatusCode,
    middleware::{Next, from_fn},
    response::Response,
    routing::post,
};
use axum_defer::{DeferLayer, defer};
use tower::ServiceExt;

#[derive(Clone)]
struct Tenant(Arc<str>);

tokio::task_local! {
    static TENANT: Tenant;
}

/// The written lines of each tenant.
type Log = Arc<Mutex<BTreeMap<String, Vec<String>>>>;

/// Takes the tenant from a header. A real app takes it from the session or the host name.
async fn tenant(mut request: Request, next: Next) -> Result<Response, StatusCode> {
    let header = request.headers().get("x-tenant");
    let name = header.and_then(|name| name.to_str().ok());
    let tenant = Tenant(name.ok_or(StatusCode::BAD_REQUEST)?.into());
    request.extensions_mut().insert(tenant.clone());
    Ok(TENANT.scope(tenant, next.run(request)).await)
}

async fn order(
    State(log): State<Log>,
    Extension(tenant): Extension<Tenant>,
    Path(id): Path<u32>,
) -> &'static str {
    // Moved into the callback. This is explicit, and also works in `defer_blocking`.
    let invoices = log.clone();
    defer(async move { write(&invoices, &tenant, format!("invoice {id}")) }).name("invoice");

    // From the task-local, which `wrap` sets for every callback.
    defer(async move { audit(&log, format!("order {id}")) }).name("audit");

    // WRONG: a spawned task has neither the task-local nor the request.
    //
    //     tokio::spawn(async move { audit(&log, format!("order {id}")) });
    //
    // `TENANT.with` panics there without a report. Without `wrap`, a deferred callback panics too,
    // but the panic is reported. A global that the middleware sets is worse: when the callback runs,
    // another request may have changed it.
    "thank you"
}

/// A function that has no access to the request.
fn audit(log: &Log, line: String) {
    TENANT.with(|tenant| write(log, tenant, line));
}

fn write(log: &Log, Tenant(tenant): &Tenant, line: String) {
    let mut log = log.lock().expect("no panic while locked");
    log.entry(tenant.to_string()).or_default().push(line);
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let log = Log::default();
    let layer = DeferLayer::new().wrap(|callback| {
        // `defer` calls this on the request's task, where the tenant is set.
        let tenant = TENANT.get();
        TENANT.scope(tenant, callback)
    });
    let deferred = layer.handle();
    let app = Router::new()
        .route("/orders/{id}", post(order))
        .with_state(log.clone())
        .layer(from_fn(tenant))
        .layer(layer);

    for id in 1..=6 {
        let tenant = ["acme", "globex"][id % 2];
        let request = Request::post(format!("/orders/{id}")).header("x-tenant", tenant);
        let response = app.clone().oneshot(request.body(Body::empty())?).await?;
        assert_eq!(response.status(), StatusCode::OK);
    }
    let request = Request::post("/orders/7").body(Body::empty())?;
    let response = app.oneshot(request).await?;
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    deferred.wait_idle().await;

    let mut log = log.lock().expect("no panic while locked");
    for (tenant, lines) in log.iter_mut() {
        // Callbacks of one request run in order, and requests run concurrently.
        lines.sort();
        println!("{tenant}: {}", lines.join(", "));
    }
    let expected = |ids: [u32; 3]| -> Vec<String> {
        let lines = |kind| ids.into_iter().map(move |id| format!("{kind} {id}"));
        lines("invoice").chain(lines("order")).collect()
    };
    assert_eq!(log["globex"], expected([1, 3, 5]));
    assert_eq!(log["acme"], expected([2, 4, 6]));
    assert_eq!(log.len(), 2);
    Ok(())
}

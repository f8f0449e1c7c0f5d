//! Which tenant a callback works for: `cargo run --example multi_tenant`.
//!
//! A callback runs on a task of its own, where the request is gone. Here the tenant comes from a
//! header, and gets there in two ways: moved in, from the extensions of the request; and by
//! `DeferLayer::wrap`, for code that looks at a task-local and knows no request.

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

/// What was written, by the tenant for whom it was.
type Log = Arc<Mutex<BTreeMap<String, Vec<String>>>>;

/// In earnest: the tenant of a session, or of a host name.
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
    // Moved in: it can be seen where it comes from, and works in `defer_blocking`, too.
    let invoices = log.clone();
    defer(async move { write(&invoices, &tenant, format!("invoice {id}")) }).name("invoice");

    // By the task-local, which `wrap` sets around every callback.
    defer(async move { audit(&log, format!("order {id}")) }).name("audit");

    // WRONG: a task that is spawned has neither the task-local nor the request.
    //
    //     tokio::spawn(async move { audit(&log, format!("order {id}")) });
    //
    // `TENANT.with` panics there, and nobody is told. Without `wrap`, `defer` would fail the
    // same way, and report it. Worse still is a global that the middleware sets: the callback runs
    // when the next request has set it to somebody else.
    "thank you"
}

/// Deep in the app, and called by many.
fn audit(log: &Log, what: String) {
    TENANT.with(|tenant| write(log, tenant, what));
}

fn write(log: &Log, Tenant(tenant): &Tenant, what: String) {
    let mut log = log.lock().expect("nobody panics while writing");
    log.entry(tenant.to_string()).or_default().push(what);
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let log = Log::default();
    let layer = DeferLayer::new().wrap(|callback| {
        // Called by `defer`, on the task of the request, where it is still set.
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
    let nobody = Request::post("/orders/7").body(Body::empty())?;
    let response = app.oneshot(nobody).await?;
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    deferred.wait_idle().await;

    let mut log = log.lock().expect("nobody panics while writing");
    for (tenant, lines) in log.iter_mut() {
        // Those of one request run in order; requests run side by side.
        lines.sort();
        println!("{tenant}: {}", lines.join(", "));
    }
    let expected = |ids: [u32; 3]| -> Vec<String> {
        let of = |what| ids.into_iter().map(move |id| format!("{what} {id}"));
        of("invoice").chain(of("order")).collect()
    };
    assert_eq!(log["globex"], expected([1, 3, 5]));
    assert_eq!(log["acme"], expected([2, 4, 6]));
    assert_eq!(log.len(), 2);
    Ok(())
}

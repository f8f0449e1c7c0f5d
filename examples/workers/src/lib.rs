//! An app on Cloudflare Workers, which end a request with its response by default.
//! There is one thread and no Tokio runtime.

use std::sync::Arc;

use axum::{Router, body::Body, http::Response, routing::post};
use axum_defer::{DeferLayer, defer};
use tower_service::Service;
use wasm_bindgen_futures::spawn_local;
use worker::{Context, Env, Fetch, HttpRequest, Result, Url, event, send::SendFuture};

async fn place_order() -> &'static str {
    // Futures of JavaScript are not `Send`. `SendFuture` is sound because there is one thread.
    defer(SendFuture::new(mail())).name("receipt");
    "thank you"
}

async fn mail() -> Result<()> {
    Fetch::Url(Url::parse("https://mail.example/receipt")?)
        .send()
        .await?;
    Ok(())
}

pub fn app() -> Router {
    let layer = DeferLayer::new()
        .spawn_with(spawn_local)
        .wait_until(|extensions, idle| {
            if let Some(context) = extensions.get::<Arc<Context>>() {
                context.wait_until(idle);
            }
        });
    Router::new()
        .route("/orders", post(place_order))
        .layer(layer)
}

#[event(fetch)]
async fn fetch(mut request: HttpRequest, _: Env, context: Context) -> Result<Response<Body>> {
    request.extensions_mut().insert(Arc::new(context));
    Ok(app().call(request).await?)
}

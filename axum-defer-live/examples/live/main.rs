//! The live view with traffic: run `cargo run --example live`, and open the address that it prints.
//!
//! The app sends itself requests until you stop it: emails, a search index that is sometimes down, a
//! job that panics, clients that disconnect, and an export that takes a while. With a number, as in
//! `cargo run --example live -- 50`, it ends after that many requests. `ADDRESS` sets the listener's
//! address. Default: 127.0.0.1:3000.

use std::{env, error::Error, net::SocketAddr, time::Duration};

use axum::{response::Redirect, routing::get};
use axum_defer::DeferLayer;
use axum_defer_live::Live;
use tokio::{net::TcpListener, sync::oneshot};

mod app;
mod search;
mod traffic;

const PAGE: &str = "/admin/deferred";

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let requests = env::args().nth(1).map(|number| number.parse());
    let requests: Option<u64> = requests.transpose()?;
    let address = env::var("ADDRESS").unwrap_or_else(|_| "127.0.0.1:3000".to_owned());
    // The page shows panics of callbacks.
    std::panic::set_hook(Box::new(|_| {}));

    let live = Live::new();
    let layer = DeferLayer::new()
        .observer(live.clone())
        .timeout(Duration::from_secs(60));
    let app = app::routes()
        .route("/", get(Redirect::to(PAGE)))
        .layer(layer)
        .nest(PAGE, live.loopback_router());

    let listener = TcpListener::bind(&address).await?;
    let address = listener.local_addr()?;
    println!("http://{address}{PAGE}");

    let (stop, stopped) = oneshot::channel::<()>();
    let traffic = tokio::spawn(async move {
        traffic::send_all(address, requests).await;
        drop(stop);
    });
    let report = axum_defer::serve(
        listener,
        app.into_make_service_with_connect_info::<SocketAddr>(),
    )
    .with_graceful_shutdown(async {
        tokio::select! {
            _ = stopped => {}
            _ = tokio::signal::ctrl_c() => {}
        }
    })
    .drain_timeout(Duration::from_secs(30))
    .await;
    traffic.abort();
    println!("{report}");
    Ok(())
}

//! The server. The README lists example requests.

use std::{
    env,
    error::Error,
    net::{Ipv4Addr, SocketAddr},
    process::ExitCode,
    time::Duration,
};

use argon2::Params;
use shop::{Settings, Shop};
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> Result<ExitCode, Box<dyn Error>> {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .init();
    let port = env::var("PORT").map_or(Ok(3000), |port| port.parse())?;
    let mail_server = env::var("MAIL_SERVER").unwrap_or("127.0.0.1:1025".to_owned());
    let shop = Shop::open(Settings {
        data: env::var_os("DATA").unwrap_or("data".into()).into(),
        mail_server: mail_server.parse()?,
        mail_timeout: Duration::from_secs(10),
        hashing: Params::default(),
    })
    .await?;

    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    println!("listening on http://{}", listener.local_addr()?);
    // The live view checks the client's address.
    let app = shop
        .router
        .into_make_service_with_connect_info::<SocketAddr>();
    let report = axum_defer::serve(listener, app)
        .with_graceful_shutdown(axum_defer::shutdown_signal())
        // Longer than the timeout of callbacks, and shorter than the time until the process
        // supervisor kills.
        .drain_timeout(Duration::from_secs(25))
        .await?;
    println!("{report}");
    Ok(if report.is_complete() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

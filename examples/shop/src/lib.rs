//! A print shop: users sign up, upload documents as orders, and download them.
//!
//! The README lists which file shows which feature of axum-defer.

use std::{error::Error, fs, net::SocketAddr, path::PathBuf, time::Duration};

use argon2::Params;
use axum::{
    Router,
    extract::DefaultBodyLimit,
    middleware::map_response,
    routing::{get, post},
};
use axum_defer::{DeferHandle, DeferLayer};
use axum_defer_live::Live;
use tower_http::trace::TraceLayer;

use crate::{
    board::Board, database::Database, files::Files, mail::Mail, password::Passwords, state::App,
};

mod audit;
mod board;
mod checksum;
mod database;
mod download;
mod error;
mod files;
mod list;
mod log_in;
mod mail;
mod password;
mod session;
mod sign_up;
mod state;
mod token;
mod upload;

/// Uploads are buffered in memory.
pub const MAX_DOCUMENT: usize = 1 << 20;
const MAX_JSON: usize = 4 << 10;

pub struct Settings {
    /// The folder of the database and the documents.
    pub data: PathBuf,
    pub mail_server: SocketAddr,
    /// The time for one mail, including the wait for a connection.
    pub mail_timeout: Duration,
    /// The cost of a password hash. Tests use the minimum.
    pub hashing: Params,
}

pub struct Shop {
    pub router: Router,
    pub deferred: DeferHandle,
}

impl Shop {
    pub async fn open(settings: Settings) -> Result<Self, Box<dyn Error>> {
        fs::create_dir_all(&settings.data)?;
        let database = Database::open(settings.data.join("shop.db")).await?;
        let app = App {
            board: Board::open(&database).await?,
            files: Files::open(settings.data.join("documents"))?,
            mail: Mail::new(settings.mail_server, settings.mail_timeout)?,
            passwords: Passwords::new(settings.hashing)?,
            database,
        };

        let live = Live::new();
        // No `max_concurrency`: if the mail server hangs, mails would use all of it, and audits,
        // checksums, and the board would wait. `Mail` has a limit of its own.
        let layer = DeferLayer::new()
            .observer(live.clone())
            .timeout(Duration::from_secs(20))
            // The other callbacks of a request do not wait for its mail.
            .concurrent();
        let deferred = layer.handle();
        let json_limit = DefaultBodyLimit::max(MAX_JSON);
        let router = Router::new()
            .route("/", get(board::show))
            .route("/users", post(sign_up::sign_up).layer(json_limit))
            .route("/sessions", post(log_in::log_in).layer(json_limit))
            .route("/orders", get(list::list).post(upload::upload))
            .route("/orders/{id}", get(download::download))
            .layer(DefaultBodyLimit::max(MAX_DOCUMENT))
            .with_state(app)
            .layer(layer)
            // Outside the layer, because a failed commit changes the response there.
            .layer(map_response(error::error_page))
            // Outside the layer, so that the live view does not record its own requests.
            .nest("/admin/deferred", live.loopback_router())
            // Outside the layer, so that callbacks see the span of their request.
            .layer(TraceLayer::new_for_http());
        Ok(Self { router, deferred })
    }
}

//! A print shop: who has signed up uploads a document, which is an order, and gets it back.
//!
//! The place where the edges of axum-defer meet; the README says which file shows which.

use std::{error::Error, fs, net::SocketAddr, path::PathBuf, time::Duration};

use argon2::Params;
use axum::{
    Router,
    extract::DefaultBodyLimit,
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
mod files;
mod list;
mod log_in;
mod mail;
mod password;
mod refused;
mod session;
mod sign_up;
mod state;
mod token;
mod upload;

/// Documents are held in memory while they are received.
pub const MAX_DOCUMENT: usize = 1 << 20;

pub struct Settings {
    /// The folder for the database and the documents.
    pub data: PathBuf,
    pub mail_server: SocketAddr,
    /// What the hash of a password costs; less in tests.
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
            mail: Mail::new(settings.mail_server)?,
            passwords: Passwords::new(settings.hashing)?,
            database,
        };

        let live = Live::new();
        let layer = DeferLayer::new()
            .observer(live.clone())
            // The mail server, above all, may hang.
            .timeout(Duration::from_secs(60))
            // So many connections to it at most, however many orders come.
            .max_concurrency(16);
        let deferred = layer.handle();
        let router = Router::new()
            .route("/", get(board::show))
            .route("/users", post(sign_up::sign_up))
            .route("/sessions", post(log_in::log_in))
            .route("/orders", get(list::list).post(upload::upload))
            .route("/orders/{id}", get(download::download))
            .layer(DefaultBodyLimit::max(MAX_DOCUMENT))
            .with_state(app)
            .layer(layer)
            // Beside the layer, so that it does not record itself.
            .nest("/admin/deferred", live.loopback_router())
            // Around it, so that callbacks know the span of their request.
            .layer(TraceLayer::new_for_http());
        Ok(Self { router, deferred })
    }
}

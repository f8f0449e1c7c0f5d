//! The shop: its server, its database and its mail.

use std::{fs, net::SocketAddr, path::PathBuf, time::Duration};

use argon2::Params;
use axum_defer::{DeferHandle, DrainReport};
use shop::{Settings, Shop};
use sqlx::{SqlitePool, sqlite::SqliteConnectOptions};
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle};

use crate::{client::Client, mail_server::MailServer};

pub struct RunningShop {
    pub address: SocketAddr,
    pub mail: MailServer,
    pub data: PathBuf,
    /// The test's own, beside those of the shop.
    pub database: SqlitePool,
    deferred: DeferHandle,
    stop: Option<oneshot::Sender<()>>,
    server: JoinHandle<DrainReport>,
}

pub fn folder(test: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(test);
    let _ = fs::remove_dir_all(&folder);
    folder
}

impl RunningShop {
    pub async fn start(test: &str) -> Self {
        let data = folder(test);
        let mail = MailServer::start().await;
        let shop = Shop::open(Settings {
            data: data.clone(),
            mail_server: mail.address,
            // The least that there is.
            hashing: Params::new(Params::MIN_M_COST, 1, 1, None).unwrap(),
        });
        let shop = shop.await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let app = shop
            .router
            .into_make_service_with_connect_info::<SocketAddr>();
        let server = axum_defer::serve(listener, app)
            .with_graceful_shutdown(async { stopped.await.unwrap_or(()) })
            // Who waits for so long hangs.
            .drain_timeout(Duration::from_secs(120));
        let database = SqliteConnectOptions::new().filename(data.join("shop.db"));
        Self {
            address,
            mail,
            data,
            database: SqlitePool::connect_with(database).await.unwrap(),
            deferred: shop.deferred,
            stop: Some(stop),
            server: tokio::spawn(async { server.await.unwrap() }),
        }
    }

    pub fn client(&self) -> Client {
        Client::new(self.address)
    }

    /// A client of somebody who has signed up and is logged in.
    pub async fn user(&self, email: &str) -> Client {
        let mut client = self.client();
        client.sign_up(email).await;
        client.log_in(email).await;
        client
    }

    /// Returns when everything has run that was deferred.
    pub async fn rest(&self) {
        self.deferred.wait_idle().await;
    }

    pub async fn count(&self, query: &'static str) -> i64 {
        let counted = sqlx::query_scalar(query).fetch_one(&self.database);
        counted.await.unwrap()
    }

    /// Action, status and delivery, in the order in which they were written.
    pub async fn audited(&self) -> Vec<(String, Option<i64>, String)> {
        sqlx::query_as("SELECT action, status, delivery FROM audit ORDER BY id")
            .fetch_all(&self.database)
            .await
            .unwrap()
    }

    pub fn documents(&self) -> usize {
        fs::read_dir(self.data.join("documents")).unwrap().count()
    }

    /// Returns when requests in flight and callbacks are over; what they left may be looked at.
    pub async fn stop(&mut self) -> DrainReport {
        let stop = self.stop.take();
        stop.expect("it is stopped once").send(()).unwrap();
        (&mut self.server).await.unwrap()
    }
}

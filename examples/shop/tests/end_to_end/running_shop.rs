//! A running shop, with its database and its mail server.

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
    /// A pool of the test, separate from those of the shop.
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
        Self::start_with(test, MailServer::start().await).await
    }

    pub async fn start_with(test: &str, mail: MailServer) -> Self {
        let data = folder(test);
        let shop = Shop::open(Settings {
            data: data.clone(),
            mail_server: mail.address,
            // Longer than a test.
            mail_timeout: Duration::from_secs(600),
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
            // A shutdown that takes longer hangs.
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

    /// Returns a client that has signed up and logged in.
    pub async fn user(&self, email: &str) -> Client {
        let mut client = self.client();
        client.sign_up(email).await;
        client.log_in(email).await;
        client
    }

    /// Waits until all callbacks have run.
    pub async fn wait_idle(&self) {
        self.deferred.wait_idle().await;
    }

    pub async fn count(&self, query: &'static str) -> i64 {
        let counted = sqlx::query_scalar(query).fetch_one(&self.database);
        counted.await.unwrap()
    }

    /// Waits until `query` returns `count`.
    pub async fn wait_for(&self, count: i64, query: &'static str) {
        for _ in 0..3_000 {
            if self.count(query).await == count {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("not {count}: {query}");
    }

    /// Returns action, status, and delivery of each row, oldest first.
    pub async fn audited(&self) -> Vec<(String, Option<i64>, String)> {
        sqlx::query_as("SELECT action, status, delivery FROM audit ORDER BY id")
            .fetch_all(&self.database)
            .await
            .unwrap()
    }

    pub fn documents(&self) -> usize {
        fs::read_dir(self.data.join("documents")).unwrap().count()
    }

    /// Shuts down gracefully. The data remains.
    pub async fn stop(&mut self) -> DrainReport {
        let stop = self.stop.take();
        stop.expect("stopped only once").send(()).unwrap();
        (&mut self.server).await.unwrap()
    }
}

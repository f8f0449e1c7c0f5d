//! A Postgres driver whose LISTEN connection is restored after an outage.
//!
//! The driver of graphile_worker gives up if its first attempt to reconnect fails. The worker then
//! polls until the process ends.

use std::{any::Any, time::Duration};

use futures_util::{StreamExt, stream};
use graphile_worker::{
    BoxFuture, DatabaseDriver, DbError, DbExecutor, DbParams, DbRow, DbTransaction, Notification,
    NotificationStream, sqlx::SqlxDatabase,
};

const RETRY_INTERVAL: Duration = Duration::from_secs(1);

#[derive(Clone, Debug)]
pub struct ReconnectingDatabase(pub SqlxDatabase);

impl DatabaseDriver for ReconnectingDatabase {
    fn as_any(&self) -> &dyn Any {
        &self.0
    }

    fn begin<'a>(&'a self) -> BoxFuture<'a, Result<DbTransaction, DbError>> {
        self.0.begin()
    }

    fn listen<'a>(
        &'a self,
        channel: &'a str,
    ) -> BoxFuture<'a, Result<Option<NotificationStream>, DbError>> {
        Box::pin(async move {
            let listener = Listener {
                database: self.0.clone(),
                channel: channel.to_owned(),
                notifications: self.0.listen(channel).await?,
            };
            let notifications = stream::unfold(listener, async |mut listener| {
                Some((Ok(listener.next().await), listener))
            });
            Ok(Some(Box::pin(notifications) as NotificationStream))
        })
    }
}

impl DbExecutor for ReconnectingDatabase {
    fn execute<'a>(
        &'a self,
        sql: &'a str,
        params: DbParams,
    ) -> BoxFuture<'a, Result<u64, DbError>> {
        self.0.execute(sql, params)
    }

    fn fetch_all<'a>(
        &'a self,
        sql: &'a str,
        params: DbParams,
    ) -> BoxFuture<'a, Result<Vec<DbRow>, DbError>> {
        self.0.fetch_all(sql, params)
    }
}

struct Listener {
    database: SqlxDatabase,
    channel: String,
    notifications: Option<NotificationStream>,
}

impl Listener {
    /// Returns the next notification, and one after each reconnect, because jobs may have been added
    /// in between.
    async fn next(&mut self) -> Notification {
        if let Some(notifications) = &mut self.notifications {
            match notifications.next().await {
                Some(Ok(notification)) => return notification,
                Some(Err(error)) => tracing::warn!("notification listener failed: {error}"),
                None => tracing::warn!("notification listener ended"),
            }
            self.notifications = None;
        }
        loop {
            match self.database.listen(&self.channel).await {
                Ok(notifications) => {
                    self.notifications = notifications;
                    tracing::info!("notification listener reconnected");
                    return Notification {
                        channel: self.channel.clone(),
                        payload: String::new(),
                    };
                }
                Err(error) => tracing::warn!("notification listener cannot reconnect: {error}"),
            }
            tokio::time::sleep(RETRY_INTERVAL).await;
        }
    }
}

//! A stand-in for the mail provider, which is a separate system and shares no transaction with us.

use std::time::Duration;

use sqlx::PgPool;

#[derive(Clone, Debug)]
pub struct Mail {
    provider: PgPool,
    send_time: Duration,
}

impl Mail {
    pub fn new(provider: PgPool, send_time: Duration) -> Self {
        Self {
            provider,
            send_time,
        }
    }

    /// Sends a mail, once per key. Providers call this an idempotency key.
    pub async fn send(&self, key: i64, recipient: &str, worker: &str) -> Result<(), String> {
        tokio::time::sleep(self.send_time / 2).await;
        if !recipient.contains('@') {
            return Err(format!("{recipient:?} is not an address"));
        }
        sqlx::query(
            "INSERT INTO sent_mail (key, recipient, worker) VALUES ($1, $2, $3)
             ON CONFLICT (key) DO UPDATE SET requests = sent_mail.requests + 1",
        )
        .bind(key)
        .bind(recipient)
        .bind(worker)
        .execute(&self.provider)
        .await
        .map_err(|error| error.to_string())?;
        // The mail is sent, but the caller does not know yet.
        tokio::time::sleep(self.send_time / 2).await;
        Ok(())
    }
}

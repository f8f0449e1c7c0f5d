//! Stands for the mail provider, which is another system: it shares no transaction with us.

use std::time::Duration;

use sqlx::PgPool;

#[derive(Clone, Debug)]
pub struct Mail {
    provider: PgPool,
    takes: Duration,
}

impl Mail {
    pub fn new(provider: PgPool, takes: Duration) -> Self {
        Self { provider, takes }
    }

    /// Sends a mail, once for each key however often it is asked to: the key is what providers
    /// call an idempotency key.
    pub async fn send(&self, key: i64, recipient: &str, worker: &str) -> Result<(), String> {
        tokio::time::sleep(self.takes / 2).await;
        if !recipient.contains('@') {
            return Err(format!("{recipient:?} is no address"));
        }
        sqlx::query(
            "INSERT INTO sent_mail (key, recipient, asked_by) VALUES ($1, $2, $3)
             ON CONFLICT (key) DO UPDATE SET asked = sent_mail.asked + 1",
        )
        .bind(key)
        .bind(recipient)
        .bind(worker)
        .execute(&self.provider)
        .await
        .map_err(|error| error.to_string())?;
        // The mail is sent, and we don't know yet.
        tokio::time::sleep(self.takes / 2).await;
        Ok(())
    }
}

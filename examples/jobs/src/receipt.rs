//! The job that sends the receipt of an order.

use graphile_worker::{IntoTaskHandlerResult, TaskHandler, WorkerContext};
use serde::{Deserialize, Serialize};

use crate::mail::Mail;

/// Stored as JSON. Other versions of the app may read it, so a new field needs a default.
#[derive(Deserialize, Serialize)]
pub struct SendReceipt {
    pub order: i64,
    pub to: String,
}

impl TaskHandler for SendReceipt {
    const IDENTIFIER: &'static str = "send_receipt";

    async fn run(self, context: WorkerContext) -> impl IntoTaskHandlerResult {
        let mail = context.get_ext::<Mail>().ok_or("no mail provider")?;
        let id = *context.job().id();
        mail.send(id, &self.to, context.worker_id()).await?;
        tracing::info!(
            "job {id}: sent the receipt of order {} to {}",
            self.order,
            self.to
        );
        Ok::<(), String>(())
    }
}

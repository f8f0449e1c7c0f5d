//! The job: send the receipt of an order.

use graphile_worker::{IntoTaskHandlerResult, TaskHandler, WorkerContext};
use serde::{Deserialize, Serialize};

use crate::mail::Mail;

/// Stored as JSON, and read by whatever version of the app comes to it: new fields have a default.
#[derive(Deserialize, Serialize)]
pub struct SendReceipt {
    pub order: i64,
    pub to: String,
}

impl TaskHandler for SendReceipt {
    const IDENTIFIER: &'static str = "send_receipt";

    async fn run(self, context: WorkerContext) -> impl IntoTaskHandlerResult {
        let mail = context.get_ext::<Mail>().ok_or("no mail here")?;
        let id = *context.job().id();
        mail.send(id, &self.to, context.worker_id()).await?;
        tracing::info!(
            "job {id}: {} has the receipt of order {}",
            self.to,
            self.order
        );
        Ok::<(), String>(())
    }
}

//! The library's reports, translated for [`World`]: the only file that names its outcomes.

use std::time::Duration;

use axum_defer::{
    CallbackInfo, Completion, DeferObserver, DrainReport, Finished, Level, LostReason, Outcome,
    Phase, ScopeInfo,
};

use super::record::{Decision, Delivery, World};

pub struct Observer(pub World);

/// The number at the end of the path.
fn number(path: &str) -> Option<u64> {
    path.rsplit('/').next()?.parse().ok()
}

pub fn decision(completion: &Completion) -> Decision {
    Decision {
        delivery: match completion.delivery() {
            axum_defer::Delivery::Complete => Delivery::Complete,
            axum_defer::Delivery::Aborted => Delivery::Aborted,
            axum_defer::Delivery::BodyError => Delivery::BodyError,
            axum_defer::Delivery::NoResponse => Delivery::NoResponse,
            _ => Delivery::Other,
        },
        flushed: completion.level() == Level::Flushed,
        status: completion.status().map(|status| status.as_u16()),
        bytes: completion.body_bytes(),
    }
}

/// What a drain has left.
#[derive(Clone, Copy, Debug)]
pub struct Left {
    pub is_complete: bool,
    /// Callbacks, handlers, and shutdown handles, which are awaited until the deadline.
    pub awaited: u64,
    pub connections: u64,
}

pub fn left(report: &DrainReport) -> Left {
    Left {
        is_complete: report.is_complete(),
        awaited: report.unfinished.len() as u64 + report.running_handlers + report.shutdown_guards,
        connections: report.aborted_connections,
    }
}

impl Observer {
    fn ended(&self, callback: &CallbackInfo<'_>, how: &'static str) {
        let request = callback
            .request()
            .and_then(|request| number(request.path()));
        self.0.callback_ended(callback.id(), request, how);
        // Handlers name callbacks after their request.
        let owner = callback
            .name()
            .and_then(|name| name.split(':').next()?.parse().ok());
        if request.is_some() && owner.is_some() && owner != request {
            self.0
                .violation(format!("{callback} ended in request {request:?}"));
        }
    }
}

impl DeferObserver for Observer {
    fn completed(&self, scope: &ScopeInfo, completion: &Completion) {
        let request = scope.request().and_then(|request| number(request.path()));
        self.0.completed(request, decision(completion));
    }

    fn replaced(&self, callback: &CallbackInfo<'_>) {
        self.ended(callback, "replaced");
    }

    fn deduplicated(&self, callback: &CallbackInfo<'_>) {
        self.ended(callback, "duplicate");
    }

    fn started(&self, callback: &CallbackInfo<'_>, _: Duration) {
        let request = callback
            .request()
            .and_then(|request| number(request.path()));
        self.0.callback_started(callback.id(), request);
        let is_decided = request.and_then(|number| {
            self.0
                .with_request(number, |request| request.decided.is_some())
        });
        if callback.phase() == Phase::After && is_decided == Some(false) {
            self.0.violation(format!(
                "request {request:?}: a callback started before its end"
            ));
        }
    }

    fn finished(&self, callback: &CallbackInfo<'_>, finished: &Finished<'_>) {
        let how = match finished.outcome {
            Outcome::Ok => "ok",
            Outcome::Error(_) => "error",
            Outcome::Panicked(_) => "panicked",
            Outcome::TimedOut(_) => "timed out",
            _ => "finished",
        };
        self.ended(callback, how);
    }

    fn skipped(&self, callback: &CallbackInfo<'_>, _: &Completion) {
        self.ended(callback, "skipped");
    }

    fn cancelled(&self, callback: &CallbackInfo<'_>) {
        self.ended(callback, "cancelled");
    }

    fn lost(&self, callback: &CallbackInfo<'_>, _: LostReason) {
        self.ended(callback, "lost");
    }
}

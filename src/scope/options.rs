//! The options of a layer.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use http::{Extensions, StatusCode};
use tokio::sync::Semaphore;

use super::{max_pending::PermitPool, names::Names, spawn::Spawn, store::Store};
use crate::{
    callback::{entry::Predicate, wrap::Wrap},
    observe::dispatch::Observers,
    response::classify::Classification,
};

type BoxFuture = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A hook that receives the extensions of each request, and a future that is ready when its scope is
/// closed.
pub(crate) type WaitUntil = dyn Fn(&Extensions, BoxFuture) + Send + Sync;

#[derive(Clone, Default)]
pub(crate) struct Options {
    pub(crate) rule: Option<Arc<Predicate>>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) concurrent: bool,
    /// One permit for each scope that runs.
    pub(crate) permits: Option<Arc<Semaphore>>,
    pub(crate) observers: Observers,
    pub(crate) wrap: Option<Arc<Wrap>>,
    pub(crate) store: Arc<Store>,
    pub(crate) names: Arc<Names>,
    pub(crate) classification: Classification,
    pub(crate) to_completion: bool,
    /// The time to drive a body to its end after the client has disconnected.
    pub(crate) finish_body: Option<Duration>,
    pub(crate) max_pending: Option<Arc<PermitPool>>,
    /// The status of a response if a callback before it fails; 503 by default.
    pub(crate) failure: Option<StatusCode>,
    /// Callbacks run before the response is returned, for tests.
    pub(crate) inline: bool,
    pub(crate) wait_until: Option<Arc<WaitUntil>>,
    pub(crate) spawn: Option<Arc<Spawn>>,
}

impl Options {
    /// Returns the options of a scope without a layer.
    pub(crate) fn for_one_scope() -> Self {
        Self {
            store: Arc::new(Store::for_one_scope()),
            ..Self::default()
        }
    }

    /// Returns the status of a response if a callback before it fails.
    pub(crate) fn failure_status(&self) -> StatusCode {
        self.failure.unwrap_or(if self.fails_by_grpc_status() {
            StatusCode::OK
        } else {
            StatusCode::SERVICE_UNAVAILABLE
        })
    }

    /// Returns the grpc-status of such a response. 14 is UNAVAILABLE.
    pub(crate) fn failure_grpc_status(&self) -> Option<i32> {
        self.fails_by_grpc_status().then_some(14)
    }

    /// Returns `true` if such a response reports the failure as a grpc-status.
    pub(crate) fn fails_by_grpc_status(&self) -> bool {
        self.failure.is_none() && matches!(self.classification, Classification::Grpc)
    }
}

//! What a layer was told to do.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use http::{Extensions, StatusCode};
use tokio::sync::Semaphore;

use crate::{
    callback::{callback_future::Wrap, rule::Predicate, unique::UniqueNames},
    drain::{shard_number::ShardNumber, tracker::Tracker},
    observe::observers::Observers,
    response::classify::Classification,
};

type BoxFuture = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Told of each request, and of when it is over.
pub(crate) type WaitUntil = dyn Fn(&Extensions, BoxFuture) + Send + Sync;

/// What runs a task, in the place of a Tokio runtime.
pub(crate) type Spawn = dyn Fn(BoxFuture) + Send + Sync;

/// On cache lines of its own, apart from the reference counts of it and of others.
#[derive(Clone, Default)]
#[repr(align(128))]
pub(crate) struct Options {
    pub(crate) rule: Option<Arc<Predicate>>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) concurrent: bool,
    /// One for each scope that runs.
    pub(crate) permits: Option<Arc<Semaphore>>,
    pub(crate) observers: Observers,
    pub(crate) wrap: Option<Arc<Wrap>>,
    pub(crate) tracker: Arc<Tracker>,
    /// Where in it the scopes are counted that have this copy of the options.
    pub(crate) shard: ShardNumber,
    pub(crate) unique_names: Arc<UniqueNames>,
    pub(crate) classification: Classification,
    /// Handlers are not cut off when their client goes away.
    pub(crate) to_completion: bool,
    pub(crate) max_pending: Option<usize>,
    /// What a response becomes when something fails that it had to wait for; 503 by default.
    pub(crate) failure: Option<StatusCode>,
    /// Callbacks run before the response is returned; set by tests.
    pub(crate) inline: bool,
    /// Platforms that have to know when a request is over.
    pub(crate) wait_until: Option<Arc<WaitUntil>>,
    pub(crate) spawn: Option<Arc<Spawn>>,
}

impl Options {
    /// The status of a response when something fails that it had to wait for.
    pub(crate) fn failure_status(&self) -> StatusCode {
        self.failure.unwrap_or(if self.fails_by_grpc_status() {
            StatusCode::OK
        } else {
            StatusCode::SERVICE_UNAVAILABLE
        })
    }

    /// Whether such a response says so by its grpc-status.
    pub(crate) fn fails_by_grpc_status(&self) -> bool {
        self.failure.is_none() && matches!(self.classification, Classification::Grpc)
    }

    /// Whether a runner may have to wait, or has several callbacks going.
    pub(crate) fn has_limits(&self) -> bool {
        self.concurrent || self.permits.is_some()
    }

    /// Whether anybody is told to which unit of work a callback belongs.
    #[inline]
    pub(crate) fn hear_scopes(&self) -> bool {
        self.observers.hear_scopes() || self.tracker.is_watched()
    }
}

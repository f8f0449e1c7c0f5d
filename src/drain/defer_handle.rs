//! The handle on all callbacks of a layer.

use std::{fmt, sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{
    asker::Asker,
    deadline::at_most_until,
    draining::Draining,
    report::{DrainReport, UnfinishedCallback},
    tracker::Tracker,
};

/// Watches over the callbacks of a [`DeferLayer`](crate::DeferLayer) and all of its clones.
///
/// ```no_run
/// # use std::time::Duration;
/// # use axum::Router;
/// use axum_defer::DeferLayer;
///
/// # async fn example(shutdown: impl Future<Output = ()> + Send + 'static) -> std::io::Result<()> {
/// let layer = DeferLayer::new();
/// let deferred = layer.handle();
/// let app: Router = Router::new().layer(layer);
///
/// let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
/// axum::serve(listener, app).with_graceful_shutdown(shutdown).await?;
/// let report = deferred.drain(Duration::from_secs(30)).await;
/// println!("{report}");
/// # Ok(()) }
/// ```
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// use axum::{Router, body::Body, extract::Request, routing::get};
/// use axum_defer::{DeferLayer, defer};
/// use tower::ServiceExt;
///
/// let layer = DeferLayer::new();
/// let deferred = layer.handle();
/// let app: Router = Router::new()
///     .route("/", get(|| async { defer(async {}); }))
///     .layer(layer);
///
/// let response = app.oneshot(Request::new(Body::empty())).await.unwrap();
/// drop(response);
/// deferred.wait_idle().await;
/// assert_eq!((deferred.pending(), deferred.running()), (0, 0));
/// # }
/// ```
#[derive(Clone)]
pub struct DeferHandle {
    asker: Asker,
}

impl DeferHandle {
    pub(crate) fn new(tracker: Arc<Tracker>) -> Self {
        tracker.watch();
        Self {
            asker: Asker::new(tracker),
        }
    }

    #[cfg(feature = "serve")]
    pub(crate) fn tracker(&self) -> &Arc<Tracker> {
        self.asker.tracker()
    }

    /// Callbacks that are registered and have not started, those of requests in flight included.
    pub fn pending(&self) -> usize {
        self.asker.tracker().pending()
    }

    /// Callbacks that are running now.
    pub fn running(&self) -> usize {
        self.asker.tracker().running()
    }

    /// The callbacks that are pending or running now: name, place, request, and for how long.
    ///
    /// It looks at each scope that has some, one after the other, and stops nobody: what is
    /// registered, starts or ends meanwhile may be there or not. The order is that of
    /// registration within a scope, and none between scopes.
    ///
    /// ```
    /// use axum_defer::{DeferLayer, defer};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let layer = DeferLayer::new();
    /// let deferred = layer.handle();
    /// layer
    ///     .scope(async {
    ///         defer(async {}).name("mail");
    ///         for callback in deferred.snapshot() {
    ///             println!("{callback} for {:?}", callback.age());
    ///         }
    ///         assert_eq!(deferred.snapshot()[0].name(), Some("mail"));
    ///     })
    ///     .await;
    /// assert!(deferred.snapshot().is_empty());
    /// # }
    /// ```
    pub fn snapshot(&self) -> Vec<UnfinishedCallback> {
        self.asker.tracker().unfinished()
    }

    /// Waits until no callback is pending or running, and no handler is being
    /// [run to completion](crate::DeferLayer::run_to_completion).
    ///
    /// Requests that register callbacks later are not waited for. While requests keep coming in,
    /// this may take for ever; [`drain`](Self::drain) has a deadline.
    pub async fn wait_idle(&self) {
        self.asker.tracker().wait_idle().await;
    }

    /// Waits as [`wait_idle`](Self::wait_idle) does, but not longer than `deadline`, and reports.
    ///
    /// Call it when no new requests come in any more. Callbacks that are not finished at the
    /// deadline are named in the report and go on for as long as the runtime does.
    ///
    /// # Panics
    ///
    /// Outside of a Tokio runtime whose time driver is enabled.
    pub async fn drain(&self, deadline: Duration) -> DrainReport {
        let drain = Draining::that_reports();
        drain.add(self.asker.tracker());
        let deadline = Instant::now().checked_add(deadline);
        at_most_until(deadline, drain.wait_idle()).await;
        drain.report()
    }
}

impl fmt::Debug for DeferHandle {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("DeferHandle")
            .field("pending", &self.pending())
            .field("running", &self.running())
            .finish()
    }
}

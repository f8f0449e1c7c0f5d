//! The handle to all callbacks of a layer.

use std::{fmt, sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::{
    drain::{
        Drain, DrainSource,
        report::{DrainReport, UnfinishedCallback},
        timeout_at,
    },
    scope::{Current, current, store::Store},
};

/// A handle to the callbacks of a [`DeferLayer`](crate::DeferLayer) and all of its clones.
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
/// assert_eq!(deferred.counts().total(), 0);
/// # }
/// ```
pub struct DeferHandle {
    store: Arc<Store>,
}

/// The number of unfinished callbacks at one moment. Returned by [`DeferHandle::counts`].
///
/// ```
/// use axum_defer::DeferLayer;
///
/// let deferred = DeferLayer::new().handle();
/// let counts = deferred.counts();
/// assert_eq!((counts.pending, counts.running, counts.total()), (0, 0, 0));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CallbackCounts {
    /// Callbacks that are registered and have not started. Includes those of requests in flight.
    pub pending: usize,
    /// Callbacks that are running.
    pub running: usize,
}

impl CallbackCounts {
    /// Returns the number of callbacks that are not finished.
    pub fn total(&self) -> usize {
        self.pending + self.running
    }
}

impl DeferHandle {
    pub(crate) fn new(store: Arc<Store>) -> Self {
        store.handle_created();
        Self { store }
    }

    /// Returns the number of pending and running callbacks at one moment.
    pub fn counts(&self) -> CallbackCounts {
        let counts = self.store.counts();
        CallbackCounts {
            pending: counts.pending,
            running: counts.running,
        }
    }

    /// Returns the number of callbacks that are registered and have not started.
    pub fn pending(&self) -> usize {
        self.counts().pending
    }

    /// Returns the number of callbacks that are running.
    ///
    /// A callback counts as running from the moment at which its runner takes it.
    pub fn running(&self) -> usize {
        self.counts().running
    }

    /// Returns the callbacks that are pending or running: name, location, request, and age.
    ///
    /// The result is exact for each scope. Scopes are read one after the other, so callbacks that
    /// are registered, start, or end during the call may be missing or not. Within a scope, running
    /// callbacks come first, then pending ones in the order of registration.
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
        self.store.snapshot()
    }

    /// Waits until no callback is pending or running, and no handler is being
    /// [run to completion](crate::DeferLayer::run_to_completion), or its body
    /// [finished](crate::DeferLayer::finish_body).
    ///
    /// While requests keep arriving, this may never return. [`drain`](Self::drain) has a deadline.
    ///
    /// # Panics
    ///
    /// Panics inside a callback of this layer, and in a handler that has deferred something,
    /// because it would wait for itself.
    pub async fn wait_idle(&self) {
        let waits_for_itself = |current: &Current| {
            let is_pending = !current.scope.is_empty() || current.holder().is_some();
            is_pending && self.is_of_layer(current)
        };
        assert!(
            !self.calling_code(waits_for_itself),
            "`wait_idle` waits for the callbacks of this layer, and the calling code is one of them \
             or has deferred one: it would wait for itself. Call it outside of the layer's requests \
             and callbacks"
        );
        self.drain_of_layer().wait_idle().await;
    }

    /// Like [`wait_idle`](Self::wait_idle), but not longer than `deadline`, and returns a report.
    ///
    /// Call it when no new requests arrive anymore. Callbacks that are not finished at the deadline are
    /// named in the report, and continue as long as the runtime does.
    ///
    /// # Panics
    ///
    /// Panics outside a Tokio runtime with a time driver, and inside a callback of this layer,
    /// because it would wait for itself.
    pub async fn drain(&self, deadline: Duration) -> DrainReport {
        let is_callback =
            |current: &Current| current.holder().is_some() && self.is_of_layer(current);
        assert!(
            !self.calling_code(is_callback),
            "`drain` waits for the callbacks of this layer, and the calling code is one of them: it \
             would wait for itself. Call it outside of the layer's callbacks"
        );
        let drain = self.drain_of_layer();
        let deadline = Instant::now().checked_add(deadline);
        timeout_at(deadline, drain.wait_idle()).await;
        drain.report()
    }

    fn drain_of_layer(&self) -> Drain {
        let drain = Drain::default();
        drain.add(&self.store);
        drain
    }

    fn is_of_layer(&self, current: &Current) -> bool {
        Arc::ptr_eq(&current.scope.options.store, &self.store)
    }

    /// Returns `true` if `is_it` holds for the calling code, or for code that waits for it.
    fn calling_code(&self, is_it: impl Fn(&Current) -> bool) -> bool {
        current::get()
            .is_some_and(|current| is_it(&current) || current.scope.ancestors().any(is_it))
    }

    #[cfg(feature = "serve")]
    pub(crate) fn store(&self) -> &Arc<Store> {
        &self.store
    }
}

impl Clone for DeferHandle {
    fn clone(&self) -> Self {
        Self::new(self.store.clone())
    }
}

impl Drop for DeferHandle {
    fn drop(&mut self) {
        self.store.handle_dropped();
    }
}

impl fmt::Debug for DeferHandle {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = self.counts();
        formatter
            .debug_struct("DeferHandle")
            .field("pending", &counts.pending)
            .field("running", &counts.running)
            .finish()
    }
}

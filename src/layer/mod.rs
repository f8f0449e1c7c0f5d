//! The layer that users add, its options, and its handle.

use std::{fmt, future::Future, sync::Arc};

use tower_layer::Layer;

use self::defer_handle::DeferHandle;
use crate::{
    defer::scope::{self, ScopeOutput},
    drain::DrainSource,
    response::classify::Classification,
    scope::options::Options,
    service::Defer,
};

mod builder;
pub(crate) mod defer_handle;

/// A layer that runs callbacks after responses have been sent. Handlers register them with
/// [`defer`](crate::defer).
///
/// Add it to a router, a route, or any Tower stack of HTTP services. Clones of a layer share its
/// limits, its counts, and its [`handle`](Self::handle). If a request passes through two such layers,
/// callbacks belong to the inner one.
///
/// ```
/// use std::time::Duration;
/// use axum::{Router, routing::get};
/// use axum_defer::DeferLayer;
///
/// let app: Router = Router::new()
///     .route("/", get(|| async { "hello" }))
///     .layer(
///         DeferLayer::new()
///             .timeout(Duration::from_secs(30))
///             .max_concurrency(64),
///     );
/// ```
///
/// # Position
///
/// Put it outside everything that defers: in a router with `Router::layer`, or
/// [around](Self::layer) the whole router, which costs less. Layers outside it do not change what
/// counts as a success: a 200 that an outer layer turns into a 503 was a success. Layers inside do:
/// the 408 of an inner `TimeoutLayer` is a failure.
///
/// # One type
///
/// Options do not change the type of the layer or of its service, so a function that builds an app
/// takes a `DeferLayer` from `main` and from tests.
#[derive(Clone)]
pub struct DeferLayer {
    options: Arc<Options>,
}

impl DeferLayer {
    /// Creates a layer for which a response is a success if its status is below 400.
    pub fn new() -> Self {
        Self::with(Options::default())
    }

    /// Creates a layer for which a response is a success if its grpc-status is 0, in the headers or
    /// in the trailers.
    ///
    /// If the client disconnects before the trailers, the HTTP status decides. A call that ends without
    /// grpc-status 0 for a reason of the server, for example an error of the body, is a failure. The
    /// status is in the trailers unless the response has no message: see "Responses" in
    /// [gRPC over HTTP2](https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md).
    ///
    /// ```
    /// use axum_defer::DeferLayer;
    ///
    /// let layer = DeferLayer::new_for_grpc();
    /// // tonic::transport::Server::builder().layer(layer)
    /// # let _ = layer;
    /// ```
    pub fn new_for_grpc() -> Self {
        Self::with(Options {
            classification: Classification::Grpc,
            ..Options::default()
        })
    }

    fn with(options: Options) -> Self {
        #[cfg(feature = "metrics")]
        crate::observe::metrics::describe();
        Self {
            options: Arc::new(options),
        }
    }

    /// Puts this layer around a service, for example a whole router.
    ///
    /// With the feature `serve`, `axum_defer::serve` and `axum::serve` accept the layer around
    /// everything that they accept themselves: a `Router`, a `MethodRouter`, a handler, or a
    /// make-service with connect info. The docs of the module `serve` compare this with
    /// `Router::layer`.
    ///
    /// Like the method of [`tower::Layer`](tower_layer::Layer), but without the import.
    ///
    /// ```no_run
    /// use std::net::SocketAddr;
    /// use axum::{Router, extract::ConnectInfo, routing::get};
    /// use axum_defer::{DeferLayer, defer};
    ///
    /// async fn handler(ConnectInfo(client): ConnectInfo<SocketAddr>) -> &'static str {
    ///     defer(async move { println!("{client} has been served") });
    ///     "hello"
    /// }
    ///
    /// # async fn example(listener: tokio::net::TcpListener) {
    /// let app = Router::new()
    ///     .route("/", get(handler))
    ///     .into_make_service_with_connect_info::<SocketAddr>();
    /// # #[cfg(feature = "serve")]
    /// axum_defer::serve(listener, DeferLayer::new().layer(app)).await.unwrap();
    /// # }
    /// ```
    pub fn layer<S>(&self, inner: S) -> Defer<S> {
        Defer::new(inner, self.options.clone())
    }

    /// Returns a handle that counts, lists, and awaits the callbacks of this layer and its clones.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// use axum_defer::{DeferLayer, defer};
    ///
    /// let layer = DeferLayer::new();
    /// let deferred = layer.handle();
    /// layer
    ///     .scope(async {
    ///         defer(async {});
    ///         assert_eq!(deferred.pending(), 1);
    ///     })
    ///     .await;
    /// assert_eq!(deferred.pending(), 0);
    /// # }
    /// ```
    pub fn handle(&self) -> DeferHandle {
        DeferHandle::new(self.options.store.clone())
    }

    /// Like [`scope`](crate::scope()), with the options, the limits and the handle of this layer.
    ///
    /// [`classifier`](Self::classifier), `run_to_completion`, `finish_body`, and
    /// [`max_pending`](Self::max_pending) are about requests and have no effect here. Inside a callback
    /// of the same layer, the scope shares the permit of that callback under
    /// [`max_concurrency`](Self::max_concurrency).
    ///
    /// ```
    /// use axum_defer::{DeferLayer, defer};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let jobs = DeferLayer::new().concurrent();
    /// let output = jobs
    ///     .scope(async {
    ///         defer(async { /* after the job */ });
    ///         Ok::<_, std::io::Error>(42)
    ///     })
    ///     .await;
    /// assert_eq!(output.unwrap(), 42);
    /// # }
    /// ```
    pub fn scope<F>(&self, future: F) -> impl Future<Output = F::Output> + use<F>
    where
        F: Future<Output: ScopeOutput>,
    {
        scope::run(self.options.clone(), future)
    }
}

impl Default for DeferLayer {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for DeferLayer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = self.options.store.counts();
        let max_pending = self.options.max_pending.as_ref().map(|pool| pool.limit());
        formatter
            .debug_struct("DeferLayer")
            .field("timeout", &self.options.timeout)
            .field("concurrent", &self.options.concurrent)
            .field("max_pending", &max_pending)
            .field("pending", &counts.pending)
            .field("running", &counts.running)
            .finish_non_exhaustive()
    }
}

impl<S> Layer<S> for DeferLayer {
    type Service = Defer<S>;

    fn layer(&self, inner: S) -> Defer<S> {
        self.layer(inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn observation_by_handles_ends_with_the_last() {
        let layer = DeferLayer::new();
        let is_observed = || layer.options.store.has_handle();
        assert!(!format!("{layer:?}").is_empty() && !is_observed());
        let handle = layer.handle();
        let clone = handle.clone();
        drop(handle);
        assert!(is_observed());
        drop(clone);
        assert!(!is_observed());
    }
}

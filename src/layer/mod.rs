//! The layer that users add, and all that can be set on it.

use std::{fmt, future::Future};

use tower_layer::Layer;

use crate::{
    defer::scope::{self, UnitOutput},
    drain::{asker::Asker, defer_handle::DeferHandle},
    response::classify::Classification,
    scope::{
        options::Options,
        shared_options::{ServiceOptions, SharedOptions},
    },
    service::Defer,
};

mod settings;

/// Runs what handlers [`defer`](crate::defer) after their responses have been sent.
///
/// Add it to a router, a route, or any Tower stack of HTTP services. Options are set on the
/// layer; its clones share their limits, their counts and their [`handle`](Self::handle). Of two
/// such layers on the path of a request, the inner one owns what the handler defers.
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
/// # Where to put it
///
/// Outside of whatever defers: in a router, with `Router::layer`, or [around](Self::layer) the whole
/// router, which costs less. Layers outside of it don't change what counts as a success: a
/// 200 that an outer layer turns into a 503 was a success here. Layers inside do: the 408 of a
/// `TimeoutLayer` inside is a failure.
///
/// # One type
///
/// Whatever is set, a layer is of this one type, and so is its service: a function that makes an
/// app takes a `DeferLayer`, from `main` and from tests.
#[derive(Clone)]
pub struct DeferLayer {
    options: SharedOptions,
    asker: Asker,
}

impl DeferLayer {
    /// A layer for which a response is a success when its status is below 400.
    pub fn new() -> Self {
        Self::with(&Options::default())
    }

    /// A layer for which a response is a success when its grpc-status is 0, in the headers or in
    /// the trailers.
    ///
    /// If the client goes away before the trailers, the HTTP status decides. The status is in
    /// the trailers unless the response has no message: see "Responses" in
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
        Self::with(&Options {
            classification: Classification::Grpc,
            ..Options::default()
        })
    }

    fn with(options: &Options) -> Self {
        #[cfg(feature = "metrics")]
        crate::observe::meter::describe();
        Self {
            options: SharedOptions::new(options),
            asker: Asker::new(options.tracker.clone()),
        }
    }

    /// Puts this layer around a service, or around all that is served.
    ///
    /// With the feature `serve`, `axum_defer::serve` and `axum::serve` take the layer around
    /// whatever they take: a `Router`, a `MethodRouter`, a handler, or a make-service with connect
    /// info. "Where the layer goes" in the docs of the module `serve` tells what that means beside
    /// `Router::layer`, and what it costs.
    ///
    /// It is the method of [`tower::Layer`](tower_layer::Layer), without the import.
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
    /// axum_defer::serve(listener, DeferLayer::new().layer(app)).await
    /// # }
    /// ```
    pub fn layer<S>(&self, inner: S) -> Defer<S> {
        Defer::new(inner, ServiceOptions::All(self.options.clone()))
    }

    /// Watches over the callbacks of this layer and its clones.
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
        DeferHandle::new(self.asker.tracker().clone())
    }

    /// Like [`scope`](crate::scope()), with the options, the limits and the handle of this layer.
    ///
    /// [`classifier`](Self::classifier), `run_to_completion` and
    /// [`max_pending`](Self::max_pending) are about requests, and play no part here. Inside of a
    /// callback of the same layer, it runs in that callback's place under
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
        F: Future<Output: UnitOutput>,
    {
        scope::run(self.options.of_this_thread().clone(), future)
    }
}

impl Default for DeferLayer {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for DeferLayer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let options = self.options.of_this_thread();
        formatter
            .debug_struct("DeferLayer")
            .field("timeout", &options.timeout)
            .field("concurrent", &options.concurrent)
            .field("max_pending", &options.max_pending)
            .field("handle", &self.handle())
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
    fn as_long_as_there_is_a_layer_or_a_handle_its_tracker_can_be_asked() {
        let layer = DeferLayer::new().concurrent();
        let tracker = layer.asker.tracker().clone();
        let (service, other) = (layer.layer(()), layer.clone());
        drop(layer);
        assert!(tracker.can_be_asked());
        let handle = other.handle();
        drop(other);
        assert!(tracker.can_be_asked());
        drop(handle);
        assert!(!tracker.can_be_asked());
        drop(service);
    }
}

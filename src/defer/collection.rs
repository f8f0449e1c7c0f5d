//! The handle to all callbacks of one scope, and its extractor.

use std::{fmt, panic::Location, sync::Arc};

#[cfg(feature = "axum")]
pub use self::extractor::MissingDeferLayer;
use super::{
    before_response::{self, BeforeResponseError},
    blocking::DeferrableBlocking,
    deferred_callback::{BeforeResponseCallback, DeferredCallback},
    register::register,
};
use crate::{
    callback::{deferrable::Deferrable, output::CallbackOutput},
    scope::{Current, Scope, current},
};

/// A cheap, cloneable handle to the callbacks of one scope.
///
/// It is in the extensions of every request that passes through a
/// [`DeferLayer`](crate::DeferLayer), it is an extractor (feature `axum`), and it can be moved into
/// other tasks and threads. Callbacks that are registered through it before the scope is closed join
/// those of the scope. Later ones run at once, under the same [`Completion`](crate::Completion), when
/// the handle that [`defer`](Self::defer) returned is dropped.
///
/// ```
/// use axum_defer::DeferredCallbackCollection;
///
/// async fn handler(deferred: DeferredCallbackCollection) {
///     tokio::spawn(async move {
///         deferred.defer(async { /* after the response */ });
///     });
/// }
/// # #[cfg(feature = "axum")]
/// # let _ = axum::Router::<()>::new().route("/", axum::routing::get(handler));
/// ```
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// use axum_defer::{DeferredCallbackCollection, scope};
///
/// scope(async {
///     let deferred = DeferredCallbackCollection::current().unwrap();
///     deferred.defer(async {}).name("mail");
///     deferred.defer_blocking(|| {}).name("clean up");
///     assert_eq!((deferred.len(), deferred.is_empty()), (2, false));
///     assert_eq!(deferred.names(), ["mail", "clean up"]);
///
///     assert_eq!(deferred.forget("mail"), 1);
///     assert!(!deferred.contains("mail"));
///
///     deferred.before_response(async { /* a commit */ });
///     deferred.before_response_blocking(|| { /* one that blocks */ });
///     assert!(deferred.try_before_response(async {}).is_ok());
///     assert!(!deferred.is_client_gone());
/// })
/// .await;
/// # }
/// ```
#[derive(Clone)]
pub struct DeferredCallbackCollection {
    scope: Arc<Scope>,
}

impl DeferredCallbackCollection {
    #[inline]
    pub(crate) fn new(scope: Arc<Scope>) -> Self {
        Self { scope }
    }

    /// Returns the collection of the current scope, if there is one.
    pub fn current() -> Option<Self> {
        current::get().map(|current| Self::new(current.scope))
    }

    /// Registers a callback. See [`defer`](crate::defer).
    #[track_caller]
    pub fn defer<M, C: Deferrable<M, Output: CallbackOutput>>(
        &self,
        callback: C,
    ) -> DeferredCallback {
        register(
            self.as_current(),
            Location::caller(),
            callback.into_callback(),
        )
    }

    /// Registers a closure that blocks. See [`defer_blocking`](crate::defer_blocking).
    #[track_caller]
    pub fn defer_blocking<M, C: DeferrableBlocking<M, Output: CallbackOutput>>(
        &self,
        callback: C,
    ) -> DeferredCallback {
        register(
            self.as_current(),
            Location::caller(),
            callback.into_callback(),
        )
    }

    /// Registers a callback that the response waits for. See
    /// [`before_response`](crate::before_response).
    ///
    /// A callback that another task registers may run at once, before its handle has set a rule or a
    /// name.
    ///
    /// # Panics
    ///
    /// Panics if the head of the response is released.
    #[track_caller]
    pub fn before_response<M, C: Deferrable<M, Output: CallbackOutput>>(
        &self,
        callback: C,
    ) -> BeforeResponseCallback {
        let current = Some(self.as_current());
        before_response::or_panic(before_response::register(current, callback.into_callback()))
    }

    /// Like [`before_response`](Self::before_response), but returns an error instead of panicking.
    ///
    /// # Errors
    ///
    /// Returns [`BeforeResponseError::Released`] if the head of the response is released.
    #[track_caller]
    pub fn try_before_response<M, C: Deferrable<M, Output: CallbackOutput>>(
        &self,
        callback: C,
    ) -> Result<BeforeResponseCallback, BeforeResponseError> {
        before_response::register(Some(self.as_current()), callback.into_callback())
    }

    /// Registers a closure that blocks and that the response waits for. See
    /// [`before_response_blocking`](crate::before_response_blocking).
    ///
    /// # Panics
    ///
    /// Panics if the head of the response is released.
    #[track_caller]
    pub fn before_response_blocking<M, C: DeferrableBlocking<M, Output: CallbackOutput>>(
        &self,
        callback: C,
    ) -> BeforeResponseCallback {
        let current = Some(self.as_current());
        before_response::or_panic(before_response::register(current, callback.into_callback()))
    }

    fn as_current(&self) -> Current {
        current::for_caller(self.scope.clone())
    }

    /// Waits until the client has disconnected before it received a response, while the handler is
    /// [run to completion](crate::DeferLayer::run_to_completion).
    ///
    /// A handler can then omit work that only the client needs. The client has disconnected when the server
    /// drops the response future: the connection was lost, the stream was reset, or a shutdown closed
    /// it. A server that does not read from the connection in the meantime notices this late.
    ///
    /// Pending forever once there is a response, and if handlers are not run to completion, because
    /// they are dropped with their client. Several tasks may wait.
    ///
    #[cfg_attr(feature = "axum", doc = "```")]
    #[cfg_attr(not(feature = "axum"), doc = "```ignore")]
    /// use axum::{Router, routing::get};
    /// use axum_defer::{DeferLayer, DeferredCallbackCollection};
    ///
    /// # async fn charge() {}
    /// # async fn render_receipt() -> String { String::new() }
    /// async fn order(deferred: DeferredCallbackCollection) -> String {
    ///     charge().await;
    ///     tokio::select! {
    ///         receipt = render_receipt() => receipt,
    ///         () = deferred.client_gone() => String::new(),
    ///     }
    /// }
    ///
    /// let app: Router = Router::new()
    ///     .route("/order", get(order))
    ///     .layer(DeferLayer::new().run_to_completion());
    /// ```
    pub fn client_gone(&self) -> impl Future<Output = ()> + Send + 'static + use<> {
        let token = self.scope.client_gone().cloned();
        async move {
            match token {
                Some(token) => token.cancelled_owned().await,
                None => std::future::pending().await,
            }
        }
    }

    /// Returns `true` if [`client_gone`](Self::client_gone) is ready.
    pub fn is_client_gone(&self) -> bool {
        let token = self.scope.client_gone();
        token.is_some_and(|token| token.is_cancelled())
    }

    /// Removes the callback with this name that has not started, and the one
    /// [before the response](crate::before_response). Returns the number of removed callbacks.
    ///
    /// A callback can call this to stop a later one. An unknown name is not an error, and the name can
    /// be used again.
    pub fn forget(&self, name: &str) -> usize {
        self.scope.forget(name)
    }

    /// Returns `true` if a callback with this name is registered and has not started.
    pub fn contains(&self, name: &str) -> bool {
        self.scope.contains(name)
    }

    /// Returns the number of callbacks that are registered and have not started.
    pub fn len(&self) -> usize {
        self.scope.len()
    }

    /// Returns `true` if no callback waits to start.
    pub fn is_empty(&self) -> bool {
        self.scope.is_empty()
    }

    /// Returns the names of the callbacks that have not started, in their order. Callbacks without
    /// a name are omitted.
    pub fn names(&self) -> Vec<String> {
        self.scope.names()
    }

    pub(crate) fn scope(&self) -> &Arc<Scope> {
        &self.scope
    }
}

impl fmt::Debug for DeferredCallbackCollection {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("DeferredCallbackCollection")
            .field("len", &self.len())
            .field("names", &self.names())
            .finish()
    }
}

/// Extractors for axum handlers.
#[cfg(feature = "axum")]
mod extractor {
    use std::{convert::Infallible, fmt};

    use axum_core::{
        extract::{FromRequestParts, OptionalFromRequestParts},
        response::{IntoResponse, Response},
    };
    use http::{StatusCode, request::Parts};

    use crate::defer::collection::DeferredCallbackCollection;

    impl<S: Send + Sync> FromRequestParts<S> for DeferredCallbackCollection {
        type Rejection = MissingDeferLayer;

        async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
            parts
                .extensions
                .get::<Self>()
                .cloned()
                .ok_or(MissingDeferLayer)
        }
    }

    impl<S: Send + Sync> OptionalFromRequestParts<S> for DeferredCallbackCollection {
        type Rejection = Infallible;

        async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Option<Self>, Infallible> {
            Ok(parts.extensions.get::<Self>().cloned())
        }
    }

    /// The rejection of [`DeferredCallbackCollection`] if the request did not pass through a
    /// [`DeferLayer`](crate::DeferLayer). Responds with a 500 that says where to add the layer.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// use axum::{Router, body::Body, extract::Request, routing::get};
    /// use axum_defer::DeferredCallbackCollection;
    /// use tower::ServiceExt;
    ///
    /// let app: Router = Router::new().route("/", get(|_: DeferredCallbackCollection| async {}));
    /// // Without a layer:
    /// let response = app.oneshot(Request::new(Body::empty())).await.unwrap();
    /// assert_eq!(response.status(), 500);
    /// assert!(axum_defer::MissingDeferLayer.to_string().contains("DeferLayer::new()"));
    /// # }
    /// ```
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct MissingDeferLayer;

    impl fmt::Display for MissingDeferLayer {
        fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str(
                "`DeferredCallbackCollection` was extracted, but the request did not pass through a \
                 `DeferLayer`: add `.layer(axum_defer::DeferLayer::new())` to the router, after the \
                 routes that defer",
            )
        }
    }

    impl std::error::Error for MissingDeferLayer {}

    impl IntoResponse for MissingDeferLayer {
        fn into_response(self) -> Response {
            (StatusCode::INTERNAL_SERVER_ERROR, self.to_string()).into_response()
        }
    }
}

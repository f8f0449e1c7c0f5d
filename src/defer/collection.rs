//! The handle on all callbacks of one scope.

use std::{fmt, panic::Location, sync::Arc};

use super::{
    before_response::{self, NoHead},
    blocking::DeferrableBlocking,
    deferred_callback::DeferredCallback,
    register::register,
};
use crate::{
    callback::{deferrable::Deferrable, output::CallbackOutput},
    scope::{
        Scope,
        current::{self, Current},
    },
};

/// A cheap, clonable handle on the callbacks of one scope.
///
/// It is in the extensions of every request that goes through a
/// [`DeferLayer`](crate::DeferLayer), it is an extractor (feature `axum`), and it may be kept and
/// moved to other tasks and threads. What is deferred through it while the unit of work lasts
/// joins that unit's callbacks; what comes after the last of them has run is run at once (when
/// the handle that [`defer`](Self::defer) returned is dropped), under the same
/// [`Completion`](crate::Completion).
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

    /// The collection of the scope that the calling code belongs to, if there is one.
    pub fn current() -> Option<Self> {
        current::get().map(|current| Self::new(current.scope))
    }

    /// Registers a callback; see [`defer`](crate::defer).
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

    /// Registers a closure that blocks; see [`defer_blocking`](crate::defer_blocking).
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

    /// Has the response wait for a callback; see [`before_response`](crate::before_response).
    ///
    /// What another task registers may run at once, before the handle has given it a rule or a
    /// name.
    ///
    /// # Panics
    ///
    /// When the head of the response has been released.
    #[track_caller]
    pub fn before_response<M, C: Deferrable<M, Output: CallbackOutput>>(
        &self,
        callback: C,
    ) -> DeferredCallback {
        let current = Some(self.as_current());
        before_response::or_panic(before_response::register(current, callback.into_callback()))
    }

    /// Like [`before_response`](Self::before_response), without its panic.
    ///
    /// # Errors
    ///
    /// [`NoHead::Released`], when the head of the response has been released.
    #[track_caller]
    pub fn try_before_response<M, C: Deferrable<M, Output: CallbackOutput>>(
        &self,
        callback: C,
    ) -> Result<DeferredCallback, NoHead> {
        before_response::register(Some(self.as_current()), callback.into_callback())
    }

    /// Has the response wait for a closure that blocks; see
    /// [`before_response_blocking`](crate::before_response_blocking).
    ///
    /// # Panics
    ///
    /// When the head of the response has been released.
    #[track_caller]
    pub fn before_response_blocking<M, C: DeferrableBlocking<M, Output: CallbackOutput>>(
        &self,
        callback: C,
    ) -> DeferredCallback {
        let current = Some(self.as_current());
        before_response::or_panic(before_response::register(current, callback.into_callback()))
    }

    fn as_current(&self) -> Current {
        Current::as_seen_here(self.scope.clone())
    }

    /// Is ready when the client has gone before it had a response, while the handler is
    /// [run to completion](crate::DeferLayer::run_to_completion) without it.
    ///
    /// So a handler can leave out what only the client would have wanted, and still do the rest.
    /// The client has gone when the server drops the response to come: the connection was lost,
    /// the stream was reset, or a shutdown has cut it. A server that does not read from a
    /// connection while it answers learns of that late.
    ///
    /// Otherwise it is pending for ever: once there is a response, whose
    /// [`Completion`](crate::Completion) tells the rest, and where handlers are not run to
    /// completion, because they are dropped with their client. Several may wait for it, in
    /// any task.
    ///
    /// ```
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
        let client = self.scope.client.clone();
        async move {
            match client {
                Some(client) => client.gone().await,
                None => std::future::pending().await,
            }
        }
    }

    /// Whether [`client_gone`](Self::client_gone) is ready.
    pub fn is_client_gone(&self) -> bool {
        let client = self.scope.client.as_ref();
        client.is_some_and(|client| client.has_gone())
    }

    /// Takes out the callback of this name, if it has not started, and the one of
    /// [`before_response`](crate::before_response) that has it; how many that were.
    ///
    /// Also from inside a callback, where it stops one that comes later. An unknown name is no
    /// error, and the name may be used again.
    pub fn forget(&self, name: &str) -> usize {
        self.scope.forget(name)
    }

    /// Whether a callback of this name is registered and has not started.
    pub fn contains(&self, name: &str) -> bool {
        self.scope.contains(name)
    }

    /// How many callbacks are registered and have not started.
    pub fn len(&self) -> usize {
        self.scope.len()
    }

    /// Whether no callback is waiting.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The names of the callbacks that have not started, in their order; those without a name
    /// are left out.
    pub fn names(&self) -> Vec<String> {
        self.scope.names()
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

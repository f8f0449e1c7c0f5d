//! Which unit of work an event is about.

use std::{
    fmt,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use crate::clock::Instant;
use http::{HeaderValue, Method, Request, Uri};

/// Which request, or other unit of work, an event is about; see
/// [`DeferObserver::decided`](crate::DeferObserver::decided).
///
/// ```
/// use axum_defer::{Completion, DeferLayer, DeferObserver, ScopeInfo};
///
/// struct AccessLog;
///
/// impl DeferObserver for AccessLog {
///     fn decided(&self, scope: &ScopeInfo, completion: &Completion) {
///         let path = scope.request().map_or("-", |request| request.path());
///         let (number, status) = (scope.number(), completion.status());
///         println!("{number} {path} {status:?} answered in {:?}", scope.answered());
///         println!("{:?} after it came", scope.arrived().elapsed());
///     }
/// }
///
/// let layer = DeferLayer::new().observer(AccessLog);
/// # let _ = layer;
/// ```
// Made only where somebody listens.
#[derive(Clone)]
pub struct ScopeInfo {
    pub(crate) number: u64,
    pub(crate) request: Option<RequestInfo>,
    pub(crate) opened: Instant,
    pub(crate) answered: OnceLock<Duration>,
}

impl ScopeInfo {
    pub(crate) fn new(opened: Instant, request: Option<RequestInfo>) -> Self {
        static LAST: AtomicU64 = AtomicU64::new(0);
        Self {
            number: LAST.fetch_add(1, Relaxed) + 1,
            request,
            opened,
            answered: OnceLock::new(),
        }
    }

    /// Its number, which no other one of this process has: the
    /// [`CallbackInfo::scope`](crate::CallbackInfo::scope) of its callbacks.
    ///
    /// Counts up from 1, over all layers of the process.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The request; `None` for a [`scope`](crate::scope()).
    pub fn request(&self) -> Option<&RequestInfo> {
        self.request.as_ref()
    }

    /// When the request arrived at the layer, or the unit of work began.
    #[cfg(not(all(target_family = "wasm", target_os = "unknown")))]
    pub fn arrived(&self) -> std::time::Instant {
        self.opened.into_std()
    }

    /// How long after its arrival the handler had answered with the head of a response, or failed;
    /// `None` before that, and for a [`scope`](crate::scope()).
    pub fn answered(&self) -> Option<Duration> {
        self.answered.get().copied()
    }
}

impl PartialEq for ScopeInfo {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number && self.request == other.request
    }
}

impl Eq for ScopeInfo {}

impl fmt::Debug for ScopeInfo {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("ScopeInfo")
            .field("number", &self.number)
            .field("request", &self.request)
            .finish()
    }
}

/// The request that a callback belongs to, as it came to the [`DeferLayer`](crate::DeferLayer).
///
/// ```
/// use axum_defer::{CallbackInfo, DeferObserver, Finished};
///
/// struct Log;
///
/// impl DeferObserver for Log {
///     fn finished(&self, callback: &CallbackInfo<'_>, finished: &Finished<'_>) {
///         if let Some(request) = callback.request() {
///             let id = request.id().unwrap_or("-");
///             // Where the router has routed it, `/users/{id}` and not `/users/7`.
///             let path = request.route().unwrap_or(request.path());
///             println!("{} {path} [{id}]: {callback} {}", request.method(), finished.outcome);
///         }
///     }
/// }
/// # let _ = axum_defer::DeferLayer::new().observer(Log);
/// ```
#[derive(Clone)]
pub struct RequestInfo {
    method: Method,
    uri: Uri,
    #[cfg(feature = "matched-path")]
    route: Option<axum::extract::MatchedPath>,
    id: Option<HeaderValue>,
}

impl RequestInfo {
    pub(crate) fn of<B>(request: &Request<B>) -> Self {
        #[cfg(feature = "matched-path")]
        let uri = match request.extensions().get::<axum::extract::OriginalUri>() {
            // A router that is nested sees what is left of the path.
            Some(original) => &original.0,
            None => request.uri(),
        };
        #[cfg(not(feature = "matched-path"))]
        let uri = request.uri();
        Self {
            method: request.method().clone(),
            uri: uri.clone(),
            #[cfg(feature = "matched-path")]
            route: request.extensions().get().cloned(),
            id: request.headers().get("x-request-id").cloned(),
        }
    }

    /// The method.
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// The path, without the query; in a router that is nested, the whole path too.
    pub fn path(&self) -> &str {
        self.uri.path()
    }

    /// The route of axum that the request matched, `/users/{id}` say.
    ///
    /// There with the feature `matched-path`, which `serve` enables, and where the request has been routed before it came to
    /// the layer: with `Router::layer`, but not with a layer around the router.
    pub fn route(&self) -> Option<&str> {
        #[cfg(feature = "matched-path")]
        return self.route.as_ref().map(axum::extract::MatchedPath::as_str);
        #[cfg(not(feature = "matched-path"))]
        None
    }

    /// The header `x-request-id`, if it is text. tower-http's `SetRequestIdLayer` sets it, outside
    /// of the `DeferLayer`.
    pub fn id(&self) -> Option<&str> {
        self.id.as_ref()?.to_str().ok()
    }
}

impl PartialEq for RequestInfo {
    fn eq(&self, other: &Self) -> bool {
        self.method == other.method
            && self.uri == other.uri
            && self.route() == other.route()
            && self.id == other.id
    }
}

impl Eq for RequestInfo {}

impl fmt::Debug for RequestInfo {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("RequestInfo")
            .field("method", &self.method)
            .field("path", &self.path())
            .field("route", &self.route())
            .field("id", &self.id())
            .finish()
    }
}

/// The method, and the route or else the path.
impl fmt::Display for RequestInfo {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.route().unwrap_or(self.path());
        write!(formatter, "{} {path}", self.method)
    }
}

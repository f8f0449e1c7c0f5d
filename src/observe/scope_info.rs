//! Data of one request or other unit of work.

use std::{
    fmt,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use http::{HeaderMap, Method, Request};

use super::text::{OneLine, truncate};
use crate::clock::Instant;

/// The longest path and route that are kept, in bytes.
const MAX_PATH: usize = 1024;

/// The longest request id and method that are kept, in bytes.
const MAX_ID: usize = 128;

/// A request or other unit of work, for [`DeferObserver::completed`](crate::DeferObserver::completed).
///
/// ```
/// use axum_defer::{Completion, DeferLayer, DeferObserver, ScopeInfo};
///
/// struct AccessLog;
///
/// impl DeferObserver for AccessLog {
///     fn completed(&self, scope: &ScopeInfo, completion: &Completion) {
///         let path = scope.request().map_or("-", |request| request.path());
///         let (id, status) = (scope.id(), completion.status());
///         println!("{id} {path} {status:?}, head after {:?}", scope.time_to_head());
///         println!("{:?} since its arrival", scope.started_at().elapsed());
///     }
/// }
///
/// let layer = DeferLayer::new().observer(AccessLog);
/// # let _ = layer;
/// ```
#[derive(Clone)]
pub struct ScopeInfo {
    id: OnceLock<u64>,
    request: Option<RequestInfo>,
    pub(crate) opened: Instant,
    pub(crate) time_to_head: OnceLock<Duration>,
}

impl ScopeInfo {
    pub(crate) fn new(opened: Instant, request: Option<RequestInfo>) -> Self {
        Self {
            id: OnceLock::new(),
            request,
            opened,
            time_to_head: OnceLock::new(),
        }
    }

    /// Returns a number that is unique in this process. [`CallbackInfo::scope`] returns it for
    /// each callback of the scope.
    ///
    /// [`CallbackInfo::scope`]: crate::CallbackInfo::scope
    pub fn id(&self) -> u64 {
        static LAST: AtomicU64 = AtomicU64::new(0);
        // Assigned when it is first used, because most requests need none.
        *self.id.get_or_init(|| LAST.fetch_add(1, Relaxed) + 1)
    }

    /// Returns the request, or `None` for a [`scope`](crate::scope()).
    pub fn request(&self) -> Option<&RequestInfo> {
        self.request.as_ref()
    }

    /// Returns the time at which the request arrived at the layer, or the unit of work began.
    #[cfg(not(all(target_family = "wasm", target_os = "unknown")))]
    pub fn started_at(&self) -> std::time::Instant {
        self.opened.into_std()
    }

    /// Returns the time from the arrival of the request until the handler returned a response or
    /// failed. `None` before that, and for a [`scope`](crate::scope()).
    pub fn time_to_head(&self) -> Option<Duration> {
        self.time_to_head.get().copied()
    }
}

impl PartialEq for ScopeInfo {
    fn eq(&self, other: &Self) -> bool {
        self.id() == other.id() && self.request == other.request
    }
}

impl Eq for ScopeInfo {}

impl fmt::Debug for ScopeInfo {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("ScopeInfo")
            .field("id", &self.id())
            .field("request", &self.request)
            .finish()
    }
}

/// The request that a callback belongs to.
///
/// Contains copies, so that a pending callback does not keep the buffers of its request. Path and
/// route are truncated to 1,024 bytes, method and request id to 128.
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
///             // If the router has matched a route, `/users/{id}` instead of `/users/7`.
///             let path = request.route().unwrap_or(request.path());
///             println!("{} {path} [{id}]: {callback} {}", request.method(), finished.outcome);
///         }
///     }
/// }
/// # let _ = axum_defer::DeferLayer::new().observer(Log);
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct RequestInfo {
    method: Method,
    /// The path, the route, and the request id, one after the other: one allocation.
    text: Box<str>,
    path_end: u16,
    route_end: u16,
}

impl RequestInfo {
    pub(crate) fn new<B>(request: &Request<B>) -> Self {
        #[cfg(feature = "matched-path")]
        let uri = match request.extensions().get::<axum::extract::OriginalUri>() {
            // A nested router sees the rest of the path.
            Some(original) => &original.0,
            None => request.uri(),
        };
        #[cfg(not(feature = "matched-path"))]
        let uri = request.uri();
        #[cfg(feature = "matched-path")]
        let route = request.extensions().get::<axum::extract::MatchedPath>();
        #[cfg(feature = "matched-path")]
        let route = route.map_or("", axum::extract::MatchedPath::as_str);
        #[cfg(not(feature = "matched-path"))]
        let route = "";
        let path = truncate(uri.path(), MAX_PATH);
        let route = truncate(route, MAX_PATH);
        let id = truncate(request_id(request.headers()), MAX_ID);
        let mut text = String::with_capacity(path.len() + route.len() + id.len());
        text.push_str(path);
        text.push_str(route);
        text.push_str(id);
        Self {
            method: bounded_method(request.method()),
            // Both are at most 2,048.
            path_end: path.len() as u16,
            route_end: (path.len() + route.len()) as u16,
            text: text.into_boxed_str(),
        }
    }

    /// Returns the method.
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// Returns the path without the query. In a nested router, this is the whole path.
    pub fn path(&self) -> &str {
        &self.text[..usize::from(self.path_end)]
    }

    /// Returns the route of axum that the request matched, for example `/users/{id}`.
    ///
    /// `None` without the feature `matched-path` (which `serve` enables), and if the layer is around
    /// the router, because the request has not been routed then.
    pub fn route(&self) -> Option<&str> {
        Some(&self.text[usize::from(self.path_end)..usize::from(self.route_end)])
            .filter(|route| !route.is_empty())
    }

    /// Returns the header `x-request-id`, if it is text. tower-http's `SetRequestIdLayer` sets it
    /// if it is outside the `DeferLayer`.
    pub fn id(&self) -> Option<&str> {
        Some(&self.text[usize::from(self.route_end)..]).filter(|id| !id.is_empty())
    }
}

fn request_id(headers: &HeaderMap) -> &str {
    let id = headers.get("x-request-id");
    id.and_then(|id| id.to_str().ok()).unwrap_or("")
}

/// Clones a method. An extension method may be as long as a request head.
fn bounded_method(method: &Method) -> Method {
    match method.as_str().get(..MAX_ID) {
        Some(prefix) => Method::from_bytes(prefix.as_bytes()).unwrap_or_default(),
        None => method.clone(),
    }
}

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

/// Displays the method, and the route or else the path.
impl fmt::Display for RequestInfo {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.route().unwrap_or(self.path());
        write!(formatter, "{} {}", self.method, OneLine(path))
    }
}

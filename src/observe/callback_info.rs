//! Which callback an event is about.

use std::{
    fmt,
    panic::Location,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use super::{
    phase::Phase,
    scope_info::{RequestInfo, ScopeInfo},
};

/// A number for a callback of which somebody is told.
pub(crate) fn next_id() -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    LAST.fetch_add(1, Relaxed) + 1
}

/// Which callback an event is about, and of which request.
///
/// ```
/// use axum_defer::{CallbackInfo, DeferLayer, DeferObserver, Finished};
///
/// /// One line of JSON for each callback that ran.
/// struct Lines;
///
/// impl DeferObserver for Lines {
///     fn finished(&self, callback: &CallbackInfo<'_>, finished: &Finished<'_>) {
///         println!(
///             r#"{{"id":{},"of":{},"name":{:?},"place":"{}","phase":"{}","path":{:?},"took":{}}}"#,
///             callback.id(),
///             callback.scope(),
///             callback.name().unwrap_or_default(),
///             callback.location(),
///             callback.phase(),
///             callback.request().map(|request| request.path()),
///             finished.took.as_micros(),
///         );
///         if let (Some(arrived), Some(answered)) = (callback.arrived(), callback.answered()) {
///             println!("{:?} ago, answered in {answered:?}", arrived.elapsed());
///         }
///     }
/// }
///
/// let layer = DeferLayer::new().observer(Lines);
/// # let _ = layer;
/// ```
#[derive(Clone, Copy)]
pub struct CallbackInfo<'a> {
    pub(crate) id: u64,
    pub(crate) name: Option<&'a str>,
    pub(crate) location: &'static Location<'static>,
    pub(crate) phase: Phase,
    pub(crate) scope: Option<&'a ScopeInfo>,
    #[cfg(feature = "tracing")]
    pub(crate) span: Option<&'a tracing::Span>,
}

impl<'a> CallbackInfo<'a> {
    /// The number of the callback, which no other one of this process has.
    ///
    /// Counts up in the order of registration.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The name given with [`DeferredCallback::name`](crate::DeferredCallback::name).
    pub fn name(&self) -> Option<&'a str> {
        self.name
    }

    /// Where `defer` was called.
    pub fn location(&self) -> &'static Location<'static> {
        self.location
    }

    /// Whether it runs before the response or after it.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// The number of the request or other unit of work that the callback belongs to, which no
    /// other one of this process has: what has the same number belongs together.
    ///
    /// The field `scope` of the span `deferred` is the same number.
    pub fn scope(&self) -> u64 {
        self.scope.map_or(0, |scope| scope.number)
    }

    /// Returns the request or other unit of work that the callback belongs to.
    ///
    /// `None` if the layer has no observer.
    ///
    /// ```
    /// use axum_defer::{CallbackInfo, DeferObserver};
    ///
    /// struct Log;
    ///
    /// impl DeferObserver for Log {
    ///     fn registered(&self, callback: &CallbackInfo<'_>) {
    ///         println!("{callback} in {:?}", callback.scope_info());
    ///     }
    /// }
    /// ```
    pub fn scope_info(&self) -> Option<&'a ScopeInfo> {
        self.scope
    }

    /// The request that the callback belongs to; `None` for a [`scope`](crate::scope()).
    pub fn request(&self) -> Option<&'a RequestInfo> {
        self.scope?.request.as_ref()
    }

    /// When the request arrived at the layer, or the other unit of work began; `None` where nobody
    /// observes the layer.
    #[cfg(not(all(target_family = "wasm", target_os = "unknown")))]
    pub fn arrived(&self) -> Option<std::time::Instant> {
        self.scope.map(ScopeInfo::arrived)
    }

    /// How long after that the handler had answered with the head of a response, or failed; `None`
    /// before it has.
    ///
    /// [`DeferObserver::decided`](crate::DeferObserver::decided) tells of the end.
    pub fn answered(&self) -> Option<Duration> {
        self.scope?.answered()
    }
}

impl fmt::Debug for CallbackInfo<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("CallbackInfo")
            .field("id", &self.id)
            .field("name", &self.name)
            .field("location", &format_args!("{}", self.location))
            .field("phase", &self.phase)
            .field("scope", &self.scope())
            .field("request", &self.request())
            .finish()
    }
}

impl fmt::Display for CallbackInfo<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name {
            Some(name) => write!(formatter, "{name} ({})", self.location),
            None => self.location.fmt(formatter),
        }
    }
}

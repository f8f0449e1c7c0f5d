//! Data of one callback: its name, its location, and its phase.

use std::{
    fmt,
    panic::Location,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use super::{
    scope_info::{RequestInfo, ScopeInfo},
    text::OneLine,
};

/// The callback that an event is about, and its request.
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
///             r#"{{"id":{},"scope":{},"name":{:?},"location":"{}","phase":"{}","path":{:?},"us":{}}}"#,
///             callback.id(),
///             callback.scope(),
///             callback.name().unwrap_or_default(),
///             callback.location(),
///             callback.phase(),
///             callback.request().map(|request| request.path()),
///             finished.run_time.as_micros(),
///         );
///         if let Some(scope) = callback.scope_info() {
///             println!("{:?} ago, head after {:?}", scope.started_at().elapsed(), scope.time_to_head());
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
    /// The callback runs if the response is a success.
    #[cfg(feature = "tracing")]
    pub(crate) uses_default_rule: bool,
    #[cfg(feature = "tracing")]
    pub(crate) span: Option<&'a ::tracing::Span>,
}

impl<'a> CallbackInfo<'a> {
    /// Returns a number that is unique in this process and counts up in the order of registration.
    ///
    /// 0 if the layer has no observer.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Returns the name given with [`DeferredCallback::name`](crate::DeferredCallback::name).
    pub fn name(&self) -> Option<&'a str> {
        self.name
    }

    /// Returns the location of the call of `defer`.
    pub fn location(&self) -> &'static Location<'static> {
        self.location
    }

    /// Returns the phase in which the callback runs.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Returns the [`ScopeInfo::id`] of the request or other unit of work. Callbacks with the same
    /// number belong together.
    pub fn scope(&self) -> u64 {
        self.scope.map_or(0, ScopeInfo::id)
    }

    /// Returns the request or other unit of work. Always `Some` for observers.
    pub fn scope_info(&self) -> Option<&'a ScopeInfo> {
        self.scope
    }

    /// Returns the request, or `None` for a [`scope`](crate::scope()).
    pub fn request(&self) -> Option<&'a RequestInfo> {
        self.scope?.request()
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
            Some(name) => write!(formatter, "{} ({})", OneLine(name), self.location),
            None => self.location.fmt(formatter),
        }
    }
}

/// The time at which a callback runs: before or after the response.
///
/// ```
/// use axum_defer::{CallbackInfo, DeferObserver, Phase};
///
/// struct BeforeOnly;
///
/// impl DeferObserver for BeforeOnly {
///     fn started(&self, callback: &CallbackInfo<'_>, _: std::time::Duration) {
///         if callback.phase() == Phase::Before {
///             println!("the client waits for {callback}");
///         }
///     }
/// }
/// # let _ = axum_defer::DeferLayer::new().observer(BeforeOnly);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// The response waits for the callback: [`before_response`](crate::before_response).
    Before,
    /// The callback runs after the response: [`defer`](crate::defer()).
    After,
}

impl Phase {
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Before => "before",
            Self::After => "after",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.label())
    }
}

/// Returns a number for a callback that observers receive.
pub(crate) fn next_id() -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    LAST.fetch_add(1, Relaxed) + 1
}

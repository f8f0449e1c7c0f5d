//! What happens to callbacks, told to whoever wants to know.

use std::{error::Error, fmt, panic::Location, sync::Arc, time::Duration};

use crate::{callback::Header, completion::Completion, isolate::drop_isolated, isolate::isolate};

#[cfg(feature = "metrics")]
pub(crate) mod meter;
#[cfg(feature = "tracing")]
pub(crate) mod trace;

/// Is told what happens to each callback of a layer; see
/// [`DeferLayer::observer`](crate::DeferLayer::observer).
///
/// Every method does nothing by default. They are called one callback at a time, on the task or
/// thread on which the event happens, with no lock held; keep them short, since the next
/// callback waits. A panic in one is caught and harms nothing.
///
/// Every registered callback ends in exactly one of [`finished`](Self::finished),
/// [`skipped`](Self::skipped), [`cancelled`](Self::cancelled), [`replaced`](Self::replaced) and
/// [`lost`](Self::lost).
///
/// ```
/// use axum_defer::{CallbackInfo, DeferLayer, DeferObserver, Finished, LostReason};
///
/// struct Alert;
///
/// impl DeferObserver for Alert {
///     fn finished(&self, callback: &CallbackInfo<'_>, finished: &Finished<'_>) {
///         if !finished.is_ok() {
///             eprintln!("{callback} failed: {}", finished.outcome);
///         }
///     }
///     fn lost(&self, callback: &CallbackInfo<'_>, reason: LostReason) {
///         eprintln!("{callback} never ran: {reason}");
///     }
/// }
///
/// let layer = DeferLayer::new().observer(Alert);
/// # let _ = layer;
/// ```
#[expect(unused_variables, reason = "their names are for the docs")]
pub trait DeferObserver: Send + Sync + 'static {
    /// A callback was registered.
    ///
    /// Told when the handle that `defer` returned is dropped, so that the callback has its name
    /// by then; at the latest before anything else is told of the callback. Only what another
    /// thread cancels by its name in that very moment may be told before.
    fn registered(&self, callback: &CallbackInfo<'_>) {}

    /// A later registration took the name, and this one will not run.
    fn replaced(&self, callback: &CallbackInfo<'_>) {}

    /// The callback starts, this long after it was registered.
    fn started(&self, callback: &CallbackInfo<'_>, waited: Duration) {}

    /// The callback ran and ended, well or badly.
    fn finished(&self, callback: &CallbackInfo<'_>, finished: &Finished<'_>) {}

    /// The callback will not run, because the rule says so for this completion.
    fn skipped(&self, callback: &CallbackInfo<'_>, completion: &Completion) {}

    /// The callback was cancelled or forgotten before it started.
    fn cancelled(&self, callback: &CallbackInfo<'_>) {}

    /// The callback should have run and could not, or was cut off half-way.
    fn lost(&self, callback: &CallbackInfo<'_>, reason: LostReason) {}
}

/// Which callback an event is about.
#[derive(Clone, Copy, Debug)]
pub struct CallbackInfo<'a> {
    pub(crate) name: Option<&'a str>,
    pub(crate) location: &'static Location<'static>,
}

impl<'a> CallbackInfo<'a> {
    /// The name given with [`DeferredCallback::name`](crate::DeferredCallback::name).
    pub fn name(&self) -> Option<&'a str> {
        self.name
    }

    /// Where `defer` was called.
    pub fn location(&self) -> &'static Location<'static> {
        self.location
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

impl<'a> From<&'a Header> for CallbackInfo<'a> {
    fn from(header: &'a Header) -> Self {
        Self {
            name: header.name.as_deref(),
            location: header.location,
        }
    }
}

/// How a callback that ran came to its end.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Finished<'a> {
    /// What came of it.
    pub outcome: Outcome<'a>,
    /// From its registration to its start.
    pub waited: Duration,
    /// From its start to its end.
    pub took: Duration,
}

impl Finished<'_> {
    /// Whether the callback did what it should.
    pub fn is_ok(&self) -> bool {
        matches!(self.outcome, Outcome::Ok)
    }
}

/// What came of a callback that ran.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Outcome<'a> {
    /// It returned `()` or `Ok(())`.
    Ok,
    /// It returned this error.
    Error(&'a (dyn Error + Send + Sync + 'static)),
    /// It panicked with this message, or the predicate given with
    /// [`DeferredCallback::when`](crate::DeferredCallback::when) did.
    Panicked(&'a str),
    /// It took longer than this, and was dropped; blocking work goes on unwatched.
    TimedOut(Duration),
}

impl Outcome<'_> {
    #[cfg(any(feature = "tracing", feature = "metrics"))]
    pub(crate) fn label(&self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Error(_) => "error",
            Self::Panicked(_) => "panicked",
            Self::TimedOut(_) => "timed_out",
        }
    }
}

impl fmt::Display for Outcome<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ok => formatter.write_str("ok"),
            Self::Error(error) => write!(formatter, "error: {error}"),
            Self::Panicked(message) => write!(formatter, "panicked: {message}"),
            Self::TimedOut(limit) => write!(formatter, "timed out after {limit:?}"),
        }
    }
}

/// Why a callback that should have run did not, or not to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LostReason {
    /// There was no Tokio runtime to run it on, or the runtime was shutting down.
    NoRuntime,
    /// It had started, and was cut off: the runtime shut down, or the future that ran it (a
    /// [`scope`](crate::scope()), say) was dropped.
    Interrupted,
}

impl fmt::Display for LostReason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::NoRuntime => "there is no runtime to run it on",
            Self::Interrupted => "it was cut off while it was running",
        })
    }
}

/// Everybody who is told: tracing and metrics where they are enabled, then the user's observers.
#[derive(Clone, Default)]
pub(crate) struct Observers(Vec<Arc<dyn DeferObserver>>);

impl Observers {
    pub(crate) fn push(&mut self, observer: impl DeferObserver) {
        self.0.push(Arc::new(observer));
    }

    /// Whether anybody is told of registrations.
    pub(crate) fn hear_registrations(&self) -> bool {
        !self.0.is_empty()
    }

    /// Whether anybody is told how long each callback waits and runs.
    pub(crate) fn hear_times(&self) -> bool {
        cfg!(feature = "metrics") || !self.0.is_empty()
    }

    /// Whether anybody is told when this callback comes to a good end.
    pub(crate) fn hear_success(&self, header: &Header) -> bool {
        #[cfg(feature = "tracing")]
        if header.span.is_some() {
            return true;
        }
        let _ = header;
        self.hear_times()
    }

    fn tell(&self, tell: impl Fn(&dyn DeferObserver)) {
        for observer in &self.0 {
            // An observer's panic is not the callback's fault, and there is nobody to report
            // it to but the panic hook, which has already run.
            drop_isolated(isolate(|| tell(observer.as_ref())));
        }
    }

    pub(crate) fn registered(&self, callback: &CallbackInfo<'_>) {
        self.tell(|observer| observer.registered(callback));
    }

    pub(crate) fn replaced(&self, header: &Header) {
        #[cfg(feature = "tracing")]
        trace::replaced(header);
        #[cfg(feature = "metrics")]
        meter::count("replaced");
        self.tell(|observer| observer.replaced(&header.into()));
    }

    pub(crate) fn started(&self, header: &Header, waited: Duration) {
        #[cfg(feature = "metrics")]
        meter::waited(waited);
        self.tell(|observer| observer.started(&header.into(), waited));
    }

    pub(crate) fn finished(&self, header: &Header, finished: &Finished<'_>) {
        // Whoever listens may ask the callback's error for its text, which is user code.
        #[cfg(feature = "tracing")]
        drop_isolated(isolate(|| trace::finished(header, finished)));
        #[cfg(feature = "metrics")]
        meter::finished(finished);
        self.tell(|observer| observer.finished(&header.into(), finished));
    }

    pub(crate) fn skipped(&self, header: &Header, completion: &Completion) {
        #[cfg(feature = "tracing")]
        trace::skipped(header, completion);
        #[cfg(feature = "metrics")]
        meter::count("skipped");
        self.tell(|observer| observer.skipped(&header.into(), completion));
    }

    pub(crate) fn cancelled(&self, header: &Header) {
        #[cfg(feature = "tracing")]
        trace::cancelled(header);
        #[cfg(feature = "metrics")]
        meter::count("cancelled");
        self.tell(|observer| observer.cancelled(&header.into()));
    }

    pub(crate) fn lost(&self, header: &Header, reason: LostReason) {
        #[cfg(feature = "tracing")]
        trace::lost(header, reason);
        #[cfg(feature = "metrics")]
        meter::count("lost");
        self.tell(|observer| observer.lost(&header.into(), reason));
    }
}

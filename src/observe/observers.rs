//! Everybody who is told.

use std::{sync::Arc, time::Duration};

#[cfg(feature = "metrics")]
use super::meter;
#[cfg(feature = "tracing")]
use super::trace;
use super::{
    callback_info::CallbackInfo,
    observer::DeferObserver,
    outcome::{Finished, LostReason},
    scope_info::ScopeInfo,
};
use crate::{
    completion::Completion,
    isolate::{drop_isolated, isolate},
};

/// Everybody who is told: tracing and metrics where they are enabled, then the user's observers.
#[derive(Clone, Default)]
pub(crate) struct Observers {
    told: Vec<Arc<dyn DeferObserver>>,
    /// Makes the spans of callbacks, in the place of `deferred`.
    #[cfg(feature = "tracing")]
    pub(crate) span: Option<Arc<trace::MakeSpan>>,
    /// Metrics tell names apart.
    #[cfg(feature = "metrics")]
    pub(crate) metrics_by_name: bool,
}

impl Observers {
    pub(crate) fn push(&mut self, observer: impl DeferObserver) {
        self.told.push(Arc::new(observer));
    }

    /// Whether anybody is told to which unit of work a callback belongs.
    #[inline]
    pub(crate) fn hear_scopes(&self) -> bool {
        #[cfg(feature = "tracing")]
        if trace::is_heard() {
            return true;
        }
        !self.told.is_empty()
    }

    /// Whether anybody is told of registrations.
    #[inline]
    pub(crate) fn hear_registrations(&self) -> bool {
        !self.told.is_empty()
    }

    /// Whether anybody is told how long each callback waits and runs.
    #[inline]
    pub(crate) fn hear_times(&self) -> bool {
        cfg!(feature = "metrics") || !self.told.is_empty()
    }

    /// Whether anybody may be told how long a callback ran: of one that fails, `tracing` is.
    #[inline]
    pub(crate) fn hear_ends(&self) -> bool {
        #[cfg(feature = "tracing")]
        if trace::hears_failures() {
            return true;
        }
        self.hear_times()
    }

    #[cfg(feature = "tracing")]
    pub(crate) fn span(&self, callback: &CallbackInfo<'_>) -> Option<tracing::Span> {
        trace::span(callback, self.span.as_deref())
    }

    /// Whether anybody is told when this callback comes to a good end.
    pub(crate) fn hear_success(&self, callback: &CallbackInfo<'_>) -> bool {
        #[cfg(feature = "tracing")]
        if callback.span.is_some() {
            return true;
        }
        let _ = callback;
        self.hear_times()
    }

    fn tell(&self, tell: impl Fn(&dyn DeferObserver)) {
        for observer in &self.told {
            // An observer's panic is not the callback's fault, and there is nobody to report
            // it to but the panic hook, which has already run.
            drop_isolated(isolate(|| tell(observer.as_ref())));
        }
    }

    pub(crate) fn registered(&self, callback: &CallbackInfo<'_>) {
        self.tell(|observer| observer.registered(callback));
    }

    pub(crate) fn decided(&self, scope: &ScopeInfo, completion: &Completion) {
        self.tell(|observer| observer.decided(scope, completion));
    }

    pub(crate) fn replaced(&self, callback: &CallbackInfo<'_>) {
        #[cfg(feature = "tracing")]
        trace::replaced(callback);
        #[cfg(feature = "metrics")]
        self.meter().count("replaced", callback);
        self.tell(|observer| observer.replaced(callback));
    }

    pub(crate) fn started(&self, callback: &CallbackInfo<'_>, waited: Duration) {
        #[cfg(feature = "metrics")]
        self.meter().waited(waited, callback);
        self.tell(|observer| observer.started(callback, waited));
    }

    pub(crate) fn finished(&self, callback: &CallbackInfo<'_>, finished: &Finished<'_>) {
        // Whoever listens may ask the callback's error for its text, which is user code.
        #[cfg(feature = "tracing")]
        drop_isolated(isolate(|| trace::finished(callback, finished)));
        #[cfg(feature = "metrics")]
        self.meter().finished(finished, callback);
        self.tell(|observer| observer.finished(callback, finished));
    }

    pub(crate) fn skipped(&self, callback: &CallbackInfo<'_>, completion: &Completion) {
        #[cfg(feature = "tracing")]
        trace::skipped(callback, completion);
        #[cfg(feature = "metrics")]
        self.meter().count("skipped", callback);
        self.tell(|observer| observer.skipped(callback, completion));
    }

    pub(crate) fn cancelled(&self, callback: &CallbackInfo<'_>) {
        #[cfg(feature = "tracing")]
        trace::cancelled(callback);
        #[cfg(feature = "metrics")]
        self.meter().count("cancelled", callback);
        self.tell(|observer| observer.cancelled(callback));
    }

    pub(crate) fn duplicate(&self, callback: &CallbackInfo<'_>) {
        #[cfg(feature = "tracing")]
        trace::duplicate(callback);
        #[cfg(feature = "metrics")]
        self.meter().count("duplicate", callback);
        self.tell(|observer| observer.duplicate(callback));
    }

    #[cfg(feature = "metrics")]
    fn meter(&self) -> meter::Meter {
        meter::Meter {
            by_name: self.metrics_by_name,
        }
    }

    pub(crate) fn lost(&self, callback: &CallbackInfo<'_>, reason: LostReason) {
        #[cfg(feature = "tracing")]
        trace::lost(callback, reason);
        #[cfg(feature = "metrics")]
        self.meter().count("lost", callback);
        self.tell(|observer| observer.lost(callback, reason));
    }
}

//! Dispatch of events to `tracing`, `metrics`, and observers.

use std::{sync::Arc, time::Duration};

#[cfg(feature = "metrics")]
use super::metrics;
#[cfg(feature = "tracing")]
use super::tracing;
use super::{
    callback_info::CallbackInfo,
    observer::DeferObserver,
    outcome::{Finished, LostReason},
    scope_info::ScopeInfo,
};
use crate::{
    catch_panic::{catch_panic, drop_catching_panic},
    completion::Completion,
};

/// The receivers of events: `tracing` and `metrics` if they are enabled, then the user's observers.
#[derive(Clone, Default)]
pub(crate) struct Observers {
    observers: Vec<Arc<dyn DeferObserver>>,
    /// Creates the spans of callbacks instead of the default.
    #[cfg(feature = "tracing")]
    pub(crate) make_span: Option<Arc<tracing::MakeSpan>>,
    #[cfg(feature = "tracing")]
    pub(crate) skips: tracing::FirstSkips,
    /// Metrics have a label for the name of the callback.
    #[cfg(feature = "metrics")]
    pub(crate) metrics_by_name: bool,
}

/// The events that have a receiver, determined once per scope when it opens.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Interest {
    /// A receiver needs request details.
    pub(crate) scope: bool,
    /// A handle may request a snapshot or a report.
    pub(crate) handle: bool,
    /// There are observers.
    pub(crate) observers: bool,
    /// A receiver needs the time of each start and end.
    pub(crate) timing: bool,
    /// A subscriber may log failures.
    pub(crate) failures: bool,
    /// A subscriber may record spans.
    pub(crate) spans: bool,
}

impl Observers {
    pub(crate) fn push(&mut self, observer: impl DeferObserver) {
        self.observers.push(Arc::new(observer));
    }

    #[inline]
    pub(crate) fn interest(&self, handle: bool) -> Interest {
        let observers = !self.observers.is_empty();
        #[cfg(feature = "tracing")]
        let (failures, spans) = tracing::interest();
        #[cfg(not(feature = "tracing"))]
        let (failures, spans) = (false, false);
        Interest {
            scope: observers || handle || failures,
            handle,
            observers,
            timing: observers || cfg!(feature = "metrics"),
            failures,
            spans,
        }
    }

    #[cfg(feature = "tracing")]
    pub(crate) fn span(&self, callback: &CallbackInfo<'_>) -> Option<::tracing::Span> {
        tracing::span(callback, self.make_span.as_deref())
    }

    fn each(&self, notify: impl Fn(&dyn DeferObserver)) {
        for observer in &self.observers {
            // The panic hook has reported the panic. It must not affect the callback.
            drop_catching_panic(catch_panic(|| notify(observer.as_ref())));
        }
    }

    pub(crate) fn registered(&self, callback: &CallbackInfo<'_>) {
        self.each(|observer| observer.registered(callback));
    }

    pub(crate) fn completed(&self, scope: &ScopeInfo, completion: &Completion) {
        self.each(|observer| observer.completed(scope, completion));
    }

    pub(crate) fn started(&self, callback: &CallbackInfo<'_>, queue_time: Duration) {
        #[cfg(feature = "metrics")]
        self.metrics().started(queue_time, callback);
        self.each(|observer| observer.started(callback, queue_time));
    }

    pub(crate) fn finished(&self, callback: &CallbackInfo<'_>, finished: &Finished<'_>) {
        // A subscriber formats the callback's error, which is user code.
        #[cfg(feature = "tracing")]
        drop_catching_panic(catch_panic(|| tracing::finished(callback, finished)));
        #[cfg(feature = "metrics")]
        self.metrics().finished(finished, callback);
        self.each(|observer| observer.finished(callback, finished));
    }

    pub(crate) fn skipped(&self, callback: &CallbackInfo<'_>, completion: &Completion) {
        #[cfg(feature = "tracing")]
        tracing::skipped(callback, completion, &self.skips);
        #[cfg(feature = "metrics")]
        self.metrics().count("skipped", callback);
        self.each(|observer| observer.skipped(callback, completion));
    }

    pub(crate) fn replaced(&self, callback: &CallbackInfo<'_>) {
        #[cfg(feature = "tracing")]
        tracing::replaced(callback);
        #[cfg(feature = "metrics")]
        self.metrics().count("replaced", callback);
        self.each(|observer| observer.replaced(callback));
    }

    pub(crate) fn cancelled(&self, callback: &CallbackInfo<'_>) {
        #[cfg(feature = "tracing")]
        tracing::cancelled(callback);
        #[cfg(feature = "metrics")]
        self.metrics().count("cancelled", callback);
        self.each(|observer| observer.cancelled(callback));
    }

    pub(crate) fn deduplicated(&self, callback: &CallbackInfo<'_>) {
        #[cfg(feature = "tracing")]
        tracing::deduplicated(callback);
        #[cfg(feature = "metrics")]
        self.metrics().count("deduplicated", callback);
        self.each(|observer| observer.deduplicated(callback));
    }

    pub(crate) fn lost(&self, callback: &CallbackInfo<'_>, reason: LostReason) {
        #[cfg(feature = "tracing")]
        tracing::lost(callback, reason);
        #[cfg(feature = "metrics")]
        self.metrics().count("lost", callback);
        self.each(|observer| observer.lost(callback, reason));
    }

    #[cfg(feature = "metrics")]
    fn metrics(&self) -> metrics::Metrics {
        metrics::Metrics {
            by_name: self.metrics_by_name,
        }
    }
}

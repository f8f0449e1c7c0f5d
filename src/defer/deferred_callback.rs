//! The handle on one registered callback.

use std::{borrow::Cow, fmt, sync::Arc, time::Duration};

use crate::{
    callback::rule::Rule,
    completion::Completion,
    runner,
    scope::{Scope, state::Registration},
};

/// The handle on a callback that [`defer`](crate::defer) has registered.
///
/// The callback is registered already; the handle only changes it, and may be dropped at once.
/// Once the callback has started, was cancelled or was replaced, its methods do nothing.
///
/// Of a callback that a spawned task or a thread defers beside the request (through a
/// [`DeferredCallbackCollection`](crate::DeferredCallbackCollection)), the response may be long
/// over. Such a callback does not start before its handle is dropped, so that it never runs
/// without the name, the rule and the time-out that the handle gives it. It holds up nobody but
/// itself: those that were registered after it run meanwhile, and it starts as the next one when
/// its handle is dropped.
///
/// ```
/// # use std::time::Duration;
/// # use axum_defer::{defer, scope};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// # async fn audit() {}
/// # scope(async {
/// defer(audit())
///     .name("audit")
///     .always()
///     .timeout(Duration::from_secs(5));
/// # })
/// # .await;
/// # }
/// ```
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// use axum_defer::{defer, scope};
///
/// scope(async {
///     let mail = defer(async { unreachable!("it was cancelled") });
///     assert!(mail.cancel());
///     assert!(!mail.cancel(), "only once");
/// })
/// .await;
/// # }
/// ```
pub struct DeferredCallback {
    scope: Arc<Scope>,
    registration: Registration,
    /// The callback waits for this handle to say the last word.
    holds: bool,
}

impl DeferredCallback {
    #[inline]
    pub(crate) fn new(scope: Arc<Scope>, registration: Registration, holds: bool) -> Self {
        Self {
            scope,
            registration,
            holds,
        }
    }

    /// Gives the callback a name: for reports, for
    /// [`forget`](crate::DeferredCallbackCollection::forget), and to have only one of it.
    ///
    /// Of two callbacks of a scope with the same name only the one that was registered last
    /// stays, at its own place in the order and with its own rule; the other one is *replaced*.
    pub fn name(self, name: impl Into<Cow<'static, str>>) -> Self {
        self.scope.rename(self.registration, name.into());
        self
    }

    /// Runs the callback whatever happened, also when there was no response at all.
    ///
    /// Takes the place of [`when`](Self::when) and of the layer's rule.
    pub fn always(self) -> Self {
        self.scope.set_rule(self.registration, Rule::Always);
        self
    }

    /// Runs the callback when `predicate` says so, whatever the response was.
    ///
    /// Takes the place of [`always`](Self::always) and of the layer's rule. It is called once,
    /// right before the callback would start; if it panics, the callback has failed and does
    /// not run.
    ///
    /// ```
    /// # use axum_defer::{defer, scope};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// # async fn bill_the_download() {}
    /// # scope(async {
    /// defer(bill_the_download()).when(|completion| completion.is_success() && completion.is_delivered());
    /// # })
    /// # .await;
    /// # }
    /// ```
    pub fn when<F>(self, predicate: F) -> Self
    where
        F: Fn(&Completion) -> bool + Send + Sync + 'static,
    {
        self.scope
            .set_rule(self.registration, Rule::When(Arc::new(predicate)));
        self
    }

    /// Runs it only if no other request or scope of the layer has a callback of this name pending
    /// or running: for work of which one at a time is enough, a cache refresh say.
    ///
    /// It goes by its [name](Self::name), given before or after this; without one it does nothing.
    /// The first to register has the name until its callback is over, however it ends: it ran,
    /// failed, panicked, timed out, was skipped, cancelled, replaced or lost. One that comes
    /// meanwhile is taken out at once, and reported as a
    /// [duplicate](crate::DeferObserver::duplicate). Only callbacks that are `unique` take part.
    /// Within one scope, the last one of a name wins as ever.
    ///
    /// The layer and its clones share the names; other layers have their own.
    ///
    /// The one that runs may have read before another request wrote: where each write has to be seen,
    /// a [name](Self::name) alone is right.
    ///
    /// ```
    /// use axum_defer::{DeferLayer, defer, testing::Recorder};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// async fn refresh_the_cache() {}
    ///
    /// let recorder = Recorder::new();
    /// let layer = DeferLayer::new().observer(recorder.clone());
    /// let request = || layer.scope(async {
    ///     defer(refresh_the_cache()).name("refresh").unique();
    ///     # tokio::task::yield_now().await;
    /// });
    /// tokio::join!(request(), request());
    /// recorder.assert_ran(["refresh"]);
    /// assert_eq!(recorder.duplicates(), ["refresh"]);
    /// # }
    /// ```
    pub fn unique(self) -> Self {
        self.scope.make_unique(self.registration);
        self
    }

    /// Ends the callback, and no other, when it has run for this long; in the place of the
    /// layer's [`timeout`](crate::DeferLayer::timeout).
    ///
    /// Its future is dropped. A blocking closure can't be stopped: it is reported, and goes on
    /// unwatched. Needs Tokio's time driver; without it the callback fails.
    pub fn timeout(self, limit: Duration) -> Self {
        self.scope.set_timeout(self.registration, limit);
        self
    }

    /// Takes the callback out; `true` if it will not run because of this.
    ///
    /// `false` when it has started, or was cancelled or replaced before: what has started is
    /// not stopped.
    pub fn cancel(&self) -> bool {
        self.scope.cancel(self.registration)
    }
}

impl Drop for DeferredCallback {
    #[inline]
    fn drop(&mut self) {
        if self.holds || self.scope.options.observers.hear_registrations() {
            runner::start(&self.scope, self.scope.settled(self.registration));
        }
    }
}

impl fmt::Debug for DeferredCallback {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("DeferredCallback")
            .field("id", &self.registration.id)
            .finish_non_exhaustive()
    }
}

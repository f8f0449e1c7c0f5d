//! Handles to one registered callback.

use std::{borrow::Cow, fmt, sync::Arc, time::Duration};

use crate::{
    callback::entry::{Competition, Rule},
    completion::Completion,
    observe::callback_info::Phase,
    runner,
    scope::{Registration, Scope},
};

/// A handle to a callback that [`defer`](crate::defer) has registered.
///
/// The callback is registered already. The handle only changes it and may be dropped at once. If the
/// callback has started, or was cancelled or replaced, the methods do nothing.
///
/// A callback that a spawned task or a thread registers through a
/// [`DeferredCallbackCollection`](crate::DeferredCallbackCollection) does not start before its handle
/// is dropped, because the response may have ended already. So it never runs without the name, the
/// rule, and the timeout that the handle sets. Callbacks that are registered after it do not wait for
/// it.
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
    handle: Handle,
}

/// A handle to a callback that [`before_response`](crate::before_response) has registered.
///
/// Like [`DeferredCallback`], but without the options for names across requests, because a client
/// waits for the callback.
///
/// ```
/// # use axum_defer::{before_response, scope};
/// # use std::time::Duration;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// # scope(async {
/// before_response(async { /* a commit */ })
///     .name("commit")
///     .when(|completion| completion.is_success())
///     .timeout(Duration::from_secs(5));
/// let handle = before_response(async { unreachable!("it was cancelled") }).always();
/// assert!(handle.cancel());
/// # })
/// # .await;
/// # }
/// ```
pub struct BeforeResponseCallback {
    handle: Handle,
}

struct Handle {
    scope: Arc<Scope>,
    registration: Registration,
    /// The callback does not start before this is dropped.
    held: bool,
}

impl Handle {
    fn name(&self, name: Cow<'static, str>) {
        self.scope.rename(self.registration, name.into());
    }

    fn always(&self) {
        self.scope.set_rule(self.registration, Rule::Always, None);
    }

    fn when<F>(&self, predicate: F)
    where
        F: Fn(&Completion) -> bool + Send + Sync + 'static,
    {
        let predicate = Some(Box::new(predicate) as Box<_>);
        self.scope
            .set_rule(self.registration, Rule::When, predicate);
    }

    fn timeout(&self, limit: Duration) {
        self.scope.set_timeout(self.registration, limit);
    }

    fn cancel(&self) -> bool {
        self.scope.cancel(self.registration)
    }
}

impl Drop for Handle {
    #[inline]
    fn drop(&mut self) {
        if self.held || self.scope.interest.observers {
            let start = self.scope.handle_dropped(self.registration, self.held);
            if start.is_some() {
                runner::start(self.scope.clone(), start);
            }
        }
    }
}

impl DeferredCallback {
    #[inline]
    pub(crate) fn new(scope: Arc<Scope>, registration: Registration, held: bool) -> Self {
        Self {
            handle: Handle {
                scope,
                registration,
                held,
            },
        }
    }

    /// Names the callback: for reports, for
    /// [`forget`](crate::DeferredCallbackCollection::forget), and to keep only one of its name.
    ///
    /// If two callbacks of a scope have the same name, the one that was registered last stays, at
    /// its own position and with its own rule. The other one is *replaced*.
    pub fn name(self, name: impl Into<Cow<'static, str>>) -> Self {
        self.handle.name(name.into());
        self
    }

    /// Runs the callback for every completion, even if there was no response.
    ///
    /// Replaces [`when`](Self::when) and the layer's rule.
    pub fn always(self) -> Self {
        self.handle.always();
        self
    }

    /// Runs the callback if `predicate` returns `true` for the completion.
    ///
    /// Replaces [`always`](Self::always) and the layer's rule. `predicate` is called once, right
    /// before the callback would start. If it panics, the callback has failed and does not run.
    ///
    /// ```
    /// # use axum_defer::{defer, scope};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// # async fn bill_the_download() {}
    /// # scope(async {
    /// defer(bill_the_download()).when(|completion| completion.is_success() && completion.is_complete());
    /// # })
    /// # .await;
    /// # }
    /// ```
    pub fn when<F>(self, predicate: F) -> Self
    where
        F: Fn(&Completion) -> bool + Send + Sync + 'static,
    {
        self.handle.when(predicate);
        self
    }

    /// Runs the callback only if no other request or scope of the layer runs one of the same name,
    /// or waits to run one.
    ///
    /// The [name](Self::name) is claimed when the callback would start and its rule allows it, so a
    /// response that is never read and a request that failed do not keep it from others. The claim
    /// ends with the callback. A callback that finds its name claimed is a
    /// [duplicate](crate::DeferObserver::deduplicated) and does not run. Exception: in the scope of the
    /// claiming callback, it runs after that one, so a callback can defer its own successor. Without a
    /// name, this has no effect.
    ///
    /// The layer and its clones share the names. Only callbacks that are unique or
    /// [coalesced](Self::coalesce) compete.
    ///
    /// The running callback may have read its input before a duplicate was registered. If the last
    /// registration must have an effect, use [`coalesce`](Self::coalesce).
    ///
    #[cfg_attr(feature = "testing", doc = "```")]
    #[cfg_attr(not(feature = "testing"), doc = "```ignore")]
    /// use axum_defer::{DeferLayer, defer, testing::Recorder};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// async fn refresh_the_cache() {
    ///     # tokio::task::yield_now().await;
    /// }
    ///
    /// let recorder = Recorder::new();
    /// let layer = DeferLayer::new().observer(recorder.clone());
    /// let request = || layer.scope(async {
    ///     defer(refresh_the_cache()).name("refresh").unique();
    /// });
    /// tokio::join!(request(), request());
    /// recorder.assert_succeeded(["refresh"]);
    /// assert_eq!(recorder.deduplicated(), ["refresh"]);
    /// # }
    /// ```
    pub fn unique(self) -> Self {
        let Handle {
            scope,
            registration,
            ..
        } = &self.handle;
        scope.set_competition(*registration, Competition::Unique);
        self
    }

    /// Runs the callback after the one that has its name in another request or scope of the layer,
    /// unless another one waits for that already.
    ///
    /// So at most one callback of the name runs at a time, and after the last registration at least
    /// one run starts. Use it to batch or debounce work. The [name](Self::name) is claimed as for
    /// [`unique`](Self::unique). If it is claimed and no other callback waits for it, this one waits;
    /// if one waits already, this one is a [duplicate](crate::DeferObserver::deduplicated).
    ///
    /// While the callback waits, later callbacks of its scope run. When the name is free, it runs
    /// concurrently with them. A waiting callback counts as pending, and its
    /// [timeout](Self::timeout) starts with its code. It can no longer be cancelled, forgotten, or
    /// replaced. In a [`scope`](crate::scope()) that the
    /// claiming callback awaits, it is a duplicate, because it would wait for itself.
    ///
    #[cfg_attr(feature = "testing", doc = "```")]
    #[cfg_attr(not(feature = "testing"), doc = "```ignore")]
    /// use axum_defer::{DeferLayer, defer, testing::Recorder};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// async fn write_the_totals() {
    ///     # tokio::task::yield_now().await;
    /// }
    ///
    /// let recorder = Recorder::new();
    /// let layer = DeferLayer::new().observer(recorder.clone());
    /// let request = || layer.scope(async {
    ///     defer(write_the_totals()).name("totals").coalesce();
    /// });
    /// tokio::join!(request(), request(), request());
    /// recorder.assert_succeeded(["totals", "totals"]);
    /// assert_eq!(recorder.deduplicated(), ["totals"]);
    /// # }
    /// ```
    pub fn coalesce(self) -> Self {
        let Handle {
            scope,
            registration,
            ..
        } = &self.handle;
        scope.set_competition(*registration, Competition::Coalesce);
        self
    }

    /// Ends the callback if it has run for this long. Replaces the layer's
    /// [`timeout`](crate::DeferLayer::timeout).
    ///
    /// Its future is dropped, and the next callback runs. A blocking closure cannot be stopped: the
    /// timeout is reported, and the closure continues. Without Tokio's time driver, the callback fails.
    pub fn timeout(self, limit: Duration) -> Self {
        self.handle.timeout(limit);
        self
    }

    /// Removes the callback. Returns `true` if it will not run because of this call.
    ///
    /// Returns `false` if it was taken to run, cancelled, or replaced before. A callback that has
    /// started is not stopped.
    pub fn cancel(&self) -> bool {
        self.handle.cancel()
    }
}

impl BeforeResponseCallback {
    pub(crate) fn new(scope: Arc<Scope>, registration: Registration) -> Self {
        debug_assert_eq!(registration.phase, Phase::Before);
        Self {
            handle: Handle {
                scope,
                registration,
                held: false,
            },
        }
    }

    /// Like [`DeferredCallback::name`], among the callbacks before the response.
    pub fn name(self, name: impl Into<Cow<'static, str>>) -> Self {
        self.handle.name(name.into());
        self
    }

    /// Like [`DeferredCallback::always`].
    pub fn always(self) -> Self {
        self.handle.always();
        self
    }

    /// Like [`DeferredCallback::when`].
    pub fn when<F>(self, predicate: F) -> Self
    where
        F: Fn(&Completion) -> bool + Send + Sync + 'static,
    {
        self.handle.when(predicate);
        self
    }

    /// Like [`DeferredCallback::timeout`]. The response fails if the callback times out.
    pub fn timeout(self, limit: Duration) -> Self {
        self.handle.timeout(limit);
        self
    }

    /// Like [`DeferredCallback::cancel`].
    pub fn cancel(&self) -> bool {
        self.handle.cancel()
    }
}

impl fmt::Debug for DeferredCallback {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("DeferredCallback")
            .field("id", &self.handle.registration.id)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for BeforeResponseCallback {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("BeforeResponseCallback")
            .field("id", &self.handle.registration.id)
            .finish_non_exhaustive()
    }
}

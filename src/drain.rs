//! Counts what is pending and running, waits for it, and reports what was left.

use std::{
    borrow::Cow,
    fmt,
    future::Future,
    panic::Location,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use slab::Slab;
use tokio::{sync::Notify, time::Instant};

/// What is known of all scopes of a layer and its clones.
#[derive(Default)]
pub(crate) struct Tracker {
    /// Callbacks that are registered or running, and requests that hold the drain up.
    active: AtomicUsize,
    running: AtomicUsize,
    held: AtomicUsize,
    ran: AtomicU64,
    failed: AtomicU64,
    skipped: AtomicU64,
    lost: AtomicU64,
    idle: Notify,
    /// Those who wait for `idle`, so that the last callback need not call into the void.
    waiting_for_idle: AtomicUsize,
    /// Wakes requests that wait because of `max_pending`.
    room: Arc<Notify>,
    /// Some request has come upon `max_pending`.
    has_limit: AtomicBool,
    /// The scopes that have callbacks, so that a drain that ran out of time can name them.
    scopes: Mutex<Slab<Weak<dyn Unfinished>>>,
}

/// A scope as the tracker sees it.
pub(crate) trait Unfinished: Send + Sync {
    fn unfinished(&self) -> Vec<UnfinishedCallback>;
}

impl Tracker {
    pub(crate) fn registered(&self) {
        self.active.fetch_add(1, SeqCst);
        #[cfg(feature = "metrics")]
        crate::observe::meter::pending(1.0);
    }

    pub(crate) fn started(&self) {
        self.running.fetch_add(1, SeqCst);
        #[cfg(feature = "metrics")]
        {
            crate::observe::meter::pending(-1.0);
            crate::observe::meter::running(1.0);
        }
    }

    /// A callback that had started is over.
    pub(crate) fn ended(&self, end: End) {
        self.running.fetch_sub(1, SeqCst);
        #[cfg(feature = "metrics")]
        crate::observe::meter::running(-1.0);
        self.count(end);
    }

    /// A callback that had not started never will.
    pub(crate) fn dropped(&self, end: End) {
        #[cfg(feature = "metrics")]
        crate::observe::meter::pending(-1.0);
        self.count(end);
    }

    fn count(&self, end: End) {
        let tally = match end {
            End::Ran => Some(&self.ran),
            End::Failed => Some(&self.failed),
            End::Skipped => Some(&self.skipped),
            End::Lost => Some(&self.lost),
            End::Withdrawn => None,
        };
        if let Some(tally) = tally {
            tally.fetch_add(1, SeqCst);
        }
        self.released();
    }

    /// Keeps the tracker from being idle until [`Tracker::let_go`].
    pub(crate) fn hold(&self) {
        self.held.fetch_add(1, SeqCst);
        self.active.fetch_add(1, SeqCst);
    }

    pub(crate) fn let_go(&self) {
        self.held.fetch_sub(1, SeqCst);
        self.released();
    }

    fn released(&self) {
        // Whoever waits says so first and looks at `active` then; here it is the other way
        // round. So either they see the change, or it is seen here that they wait.
        let is_idle = self.active.fetch_sub(1, SeqCst) == 1;
        if is_idle && self.waiting_for_idle.load(SeqCst) > 0 {
            self.idle.notify_waiters();
        }
        if self.has_limit.load(SeqCst) {
            if is_idle {
                // One that was woken may be held by somebody who polls it no more, and no
                // callback is left whose end would wake the next one.
                self.room.notify_waiters();
            }
            self.room.notify_one();
        }
    }

    pub(crate) fn active(&self) -> usize {
        self.active.load(SeqCst)
    }

    /// Callbacks that are registered or running.
    pub(crate) fn callbacks(&self) -> usize {
        self.active().saturating_sub(self.held.load(SeqCst))
    }

    /// Is told of every callback that ends after this was called.
    pub(crate) fn room(&self) -> &Arc<Notify> {
        if !self.has_limit.load(SeqCst) {
            self.has_limit.store(true, SeqCst);
        }
        &self.room
    }

    /// Lists a scope until [`Tracker::delist`] with the key that this returns.
    pub(crate) fn list(&self, scope: Weak<dyn Unfinished>) -> usize {
        self.scopes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(scope)
    }

    pub(crate) fn delist(&self, key: usize) {
        let delisted = self
            .scopes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .try_remove(key);
        drop(delisted);
    }

    fn unfinished(&self) -> Vec<UnfinishedCallback> {
        let scopes: Vec<_> = self
            .scopes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .map(|(_, scope)| scope.clone())
            .collect();
        scopes
            .iter()
            .filter_map(Weak::upgrade)
            .flat_map(|scope| scope.unfinished())
            .collect()
    }

    async fn wait_idle(&self) {
        let _waiting = Waiting::new(&self.waiting_for_idle);
        loop {
            let mut idle = std::pin::pin!(self.idle.notified());
            // From here on a notification is kept, so none falls between the look and the wait.
            idle.as_mut().enable();
            if self.active() == 0 {
                return;
            }
            idle.await;
        }
    }

    fn tally(&self) -> Tally {
        Tally {
            ran: self.ran.load(SeqCst),
            failed: self.failed.load(SeqCst),
            skipped: self.skipped.load(SeqCst),
            lost: self.lost.load(SeqCst),
        }
    }
}

/// Counts somebody who waits.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, SeqCst);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

/// How a callback's time with the tracker ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Ran,
    Failed,
    Skipped,
    Lost,
    /// Cancelled, forgotten or replaced: somebody wanted it so.
    Withdrawn,
}

#[derive(Clone, Copy)]
pub(crate) struct Tally {
    ran: u64,
    failed: u64,
    skipped: u64,
    lost: u64,
}

/// Watches over the callbacks of a [`DeferLayer`](crate::DeferLayer) and all of its clones.
///
/// ```no_run
/// # use std::time::Duration;
/// # use axum::Router;
/// use axum_defer::DeferLayer;
///
/// # async fn example(shutdown: impl Future<Output = ()> + Send + 'static) -> std::io::Result<()> {
/// let layer = DeferLayer::new();
/// let deferred = layer.handle();
/// let app: Router = Router::new().layer(layer);
///
/// let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
/// axum::serve(listener, app).with_graceful_shutdown(shutdown).await?;
/// let report = deferred.drain(Duration::from_secs(30)).await;
/// println!("{report}");
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct DeferHandle {
    tracker: Arc<Tracker>,
}

impl DeferHandle {
    pub(crate) fn new(tracker: Arc<Tracker>) -> Self {
        Self { tracker }
    }

    /// Callbacks that are registered and have not started, those of requests in flight included.
    pub fn pending(&self) -> usize {
        self.tracker.callbacks().saturating_sub(self.running())
    }

    /// Callbacks that are running now.
    pub fn running(&self) -> usize {
        self.tracker.running.load(SeqCst)
    }

    /// Waits until no callback is pending or running, and no handler is being
    /// [run to completion](crate::DeferLayer::run_to_completion).
    ///
    /// Requests that register callbacks later are not waited for. While requests keep coming in,
    /// this may take for ever; [`drain`](Self::drain) has a deadline.
    pub async fn wait_idle(&self) {
        self.tracker.wait_idle().await;
    }

    /// Waits as [`wait_idle`](Self::wait_idle) does, but not longer than `deadline`, and reports.
    ///
    /// Call it when no new requests come in any more. Callbacks that are not finished at the
    /// deadline are named in the report and go on for as long as the runtime does.
    ///
    /// # Panics
    ///
    /// Outside of a Tokio runtime whose time driver is enabled.
    pub async fn drain(&self, deadline: Duration) -> DrainReport {
        let drain = Trackers::default();
        drain.add(&self.tracker);
        let deadline = Instant::now().checked_add(deadline);
        at_most_until(deadline, drain.wait_idle()).await;
        drain.report()
    }
}

impl fmt::Debug for DeferHandle {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("DeferHandle")
            .field("pending", &self.pending())
            .field("running", &self.running())
            .finish()
    }
}

/// Waits for a future, until the deadline if there is one; whether it was in time.
pub(crate) async fn at_most_until(deadline: Option<Instant>, future: impl Future) -> bool {
    match deadline {
        Some(deadline) => tokio::time::timeout_at(deadline, future).await.is_ok(),
        None => {
            future.await;
            true
        }
    }
}

/// The trackers that are drained together, each with its tally when the counting began.
#[derive(Default)]
pub(crate) struct Trackers(Mutex<Drained>);

#[derive(Default)]
struct Drained {
    trackers: Vec<(Arc<Tracker>, Tally)>,
    has_started: bool,
}

impl Trackers {
    /// Adds a tracker, counting from now, unless it is known.
    ///
    /// Those that nobody else has any more are let go, so that an app which makes its layers per
    /// request does not pile them up; but not during a drain, which is about to report them.
    pub(crate) fn add(&self, tracker: &Arc<Tracker>) {
        let mut drained = self.lock();
        let Drained {
            trackers,
            has_started,
        } = &mut *drained;
        let known = |(known, _): &(Arc<Tracker>, Tally)| Arc::ptr_eq(known, tracker);
        if !trackers.iter().any(known) {
            trackers.retain(|(known, _)| *has_started || Arc::strong_count(known) > 1);
            trackers.push((tracker.clone(), tracker.tally()));
        }
    }

    /// Counts from now.
    #[cfg(feature = "serve")]
    pub(crate) fn start(&self) {
        let mut drained = self.lock();
        drained.has_started = true;
        for (tracker, tally) in &mut drained.trackers {
            *tally = tracker.tally();
        }
    }

    pub(crate) async fn wait_idle(&self) {
        // A request that is still driven may come to a layer that was not known before.
        for index in 0.. {
            let tracker = match self.lock().trackers.get(index) {
                Some((tracker, _)) => tracker.clone(),
                None => return,
            };
            tracker.wait_idle().await;
        }
    }

    pub(crate) fn report(&self) -> DrainReport {
        let mut report = DrainReport::default();
        for (tracker, start) in &self.lock().trackers {
            let now = tracker.tally();
            report.ran += now.ran - start.ran;
            report.failed += now.failed - start.failed;
            report.skipped += now.skipped - start.skipped;
            report.lost += now.lost - start.lost;
            report.unfinished.extend(tracker.unfinished());
            report.unfinished_handlers += tracker.held.load(SeqCst) as u64;
        }
        report
    }

    fn lock(&self) -> MutexGuard<'_, Drained> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a drain saw, from its start to its end.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct DrainReport {
    /// Callbacks that ran to a good end.
    pub ran: u64,
    /// Callbacks that returned an error, panicked or timed out.
    pub failed: u64,
    /// Callbacks that the rule kept from running.
    pub skipped: u64,
    /// Callbacks that should have run and could not.
    pub lost: u64,
    /// Callbacks that were pending or running at the deadline.
    pub unfinished: Vec<UnfinishedCallback>,
    /// Handlers that were being
    /// [run to completion](crate::DeferLayer::run_to_completion) at the deadline.
    pub unfinished_handlers: u64,
}

impl DrainReport {
    /// Whether nothing was left unfinished or lost.
    pub fn is_complete(&self) -> bool {
        self.unfinished.is_empty() && self.unfinished_handlers == 0 && self.lost == 0
    }
}

impl fmt::Display for DrainReport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "deferred callbacks: {} ran, {} failed, {} skipped, {} lost, {} unfinished",
            self.ran,
            self.failed,
            self.skipped,
            self.lost,
            self.unfinished.len()
        )?;
        for (index, callback) in self.unfinished.iter().enumerate() {
            formatter.write_str(if index == 0 { ": " } else { ", " })?;
            callback.fmt(formatter)?;
        }
        match self.unfinished_handlers {
            0 => Ok(()),
            1 => formatter.write_str("; 1 handler unfinished"),
            handlers => write!(formatter, "; {handlers} handlers unfinished"),
        }
    }
}

/// A callback that was not finished when a drain ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnfinishedCallback {
    pub(crate) name: Option<Cow<'static, str>>,
    pub(crate) location: &'static Location<'static>,
    pub(crate) running: bool,
}

impl UnfinishedCallback {
    /// The name given with [`DeferredCallback::name`](crate::DeferredCallback::name).
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Where `defer` was called.
    pub fn location(&self) -> &'static Location<'static> {
        self.location
    }

    /// Whether it had started.
    pub fn is_running(&self) -> bool {
        self.running
    }
}

impl fmt::Display for UnfinishedCallback {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(name) = self.name() {
            write!(formatter, "{name} ")?;
        }
        let state = if self.running { "running" } else { "pending" };
        write!(formatter, "({}, {state})", self.location)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trackers_that_nobody_has_any_more_do_not_pile_up_before_a_drain() {
        let trackers = Trackers::default();
        let kept = Arc::new(Tracker::default());
        trackers.add(&kept);
        for _ in 0..100 {
            trackers.add(&Arc::new(Tracker::default()));
        }
        trackers.add(&kept);
        assert!(trackers.lock().trackers.len() <= 2);

        trackers.lock().has_started = true;
        let reported = Arc::new(Tracker::default());
        trackers.add(&reported);
        reported.registered();
        reported.dropped(End::Skipped);
        drop(reported);
        trackers.add(&Arc::new(Tracker::default()));
        assert_eq!(trackers.report().skipped, 1);
    }

    #[test]
    fn a_report_counts_all_trackers_from_the_start_of_the_drain() {
        let both = [(); 2].map(|()| Arc::new(Tracker::default()));
        let end = |times: usize| {
            let ends = [End::Ran, End::Failed, End::Skipped, End::Lost];
            for (more, end) in ends.into_iter().enumerate() {
                for tracker in both.iter().cycle().take(2 * (times + more)) {
                    tracker.registered();
                    tracker.dropped(end);
                }
            }
        };
        let counts = |report: &DrainReport| {
            assert_eq!(report.is_complete(), report.lost == 0);
            [report.ran, report.failed, report.skipped, report.lost]
        };
        let trackers = Trackers::default();
        end(1);
        both.iter().for_each(|tracker| trackers.add(tracker));
        assert_eq!(counts(&trackers.report()), [0; 4]);
        end(2);
        assert_eq!(counts(&trackers.report()), [4, 6, 8, 10]);

        both.iter().for_each(|tracker| tracker.hold());
        let report = trackers.report();
        assert_eq!(report.unfinished_handlers, 2);
        assert!(!report.is_complete());
        assert_eq!(
            report.to_string(),
            "deferred callbacks: 4 ran, 6 failed, 8 skipped, 10 lost, 0 unfinished; \
             2 handlers unfinished"
        );
    }
}

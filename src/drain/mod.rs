//! Waiting for unfinished work, the signal that begins a shutdown, and the report at the end.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::Poll,
};

use tokio::{sync::Notify, time::Instant};
#[cfg(feature = "serve")]
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::{TaskTracker, task_tracker::TaskTrackerToken},
};

use self::report::{DrainReport, UnfinishedCallback};

pub(crate) mod report;

/// The stores that are drained together.
#[derive(Default)]
pub(crate) struct Drain {
    sources: Mutex<Sources>,
    /// Notified when a store is added.
    added: Notify,
}

#[derive(Default)]
struct Sources {
    /// Each with its outcomes when the drain began.
    sources: Vec<(Arc<dyn DrainSource>, OutcomeCounts)>,
    has_started: bool,
}

/// The result of two scans.
enum Progress {
    Idle,
    /// Something was registered and has ended between the scans, or a source was added.
    Changed,
    /// A shard has unfinished work, and notifies when that has ended.
    Unfinished,
}

impl Drain {
    /// Adds a store, unless it is known. Its outcomes count from now.
    ///
    /// Before the drain starts, stores that only this list refers to are removed, so that an app
    /// which creates layers per request does not fill the list.
    pub(crate) fn add<S: DrainSource + 'static>(&self, source: &Arc<S>) {
        let mut removed = Vec::new();
        {
            let mut sources = self.lock();
            let is_same = |(known, _): &(Arc<dyn DrainSource>, _)| {
                std::ptr::addr_eq(Arc::as_ptr(known), Arc::as_ptr(source))
            };
            if sources.sources.iter().any(is_same) {
                return;
            }
            if !sources.has_started {
                let all = std::mem::take(&mut sources.sources);
                let is_used = |(known, _): &(Arc<dyn DrainSource>, _)| Arc::strong_count(known) > 1;
                (sources.sources, removed) = all.into_iter().partition(is_used);
            }
            let outcomes = source.outcomes();
            sources.sources.push((source.clone(), outcomes));
        }
        drop(removed);
        self.added.notify_waiters();
    }

    /// Counts outcomes from now on.
    #[cfg(feature = "serve")]
    pub(crate) fn start(&self) {
        let mut sources = self.lock();
        sources.has_started = true;
        for (source, outcomes) in &mut sources.sources {
            *outcomes = source.outcomes();
        }
    }

    /// Waits until all stores are idle at the same moment.
    ///
    /// This is certain if two successive scans find nothing unfinished, and nothing was registered in
    /// between. Work that moves between layers or shards is never overlooked.
    pub(crate) async fn wait_idle(&self) {
        loop {
            let mut added = pin!(self.added.notified());
            added.as_mut().enable();
            let sources = self.sources();
            let mut idle: Vec<_> = sources
                .iter()
                .map(|source| Box::pin(source.idle().notified()))
                .collect();
            for idle in &mut idle {
                // A notification between the scan and the wait is kept.
                idle.as_mut().enable();
            }
            match self.scan_twice(&sources) {
                Progress::Idle => return,
                // No shard was unfinished in a scan, so none would notify.
                Progress::Changed => {
                    tokio::task::yield_now().await;
                    continue;
                }
                Progress::Unfinished => {}
            }
            poll_fn(|cx| {
                let mut is_ready = added.as_mut().poll(cx).is_ready();
                for idle in &mut idle {
                    is_ready |= Pin::new(idle).poll(cx).is_ready();
                }
                if is_ready {
                    Poll::Ready(())
                } else {
                    Poll::Pending
                }
            })
            .await;
        }
    }

    fn scan_twice(&self, sources: &[Arc<dyn DrainSource>]) -> Progress {
        let scan = || -> Option<u64> {
            let mut registered = 0;
            for source in sources {
                let scan = source.scan();
                if scan.unfinished > 0 {
                    return None;
                }
                registered += scan.registered;
            }
            Some(registered)
        };
        let (Some(first), Some(second)) = (scan(), scan()) else {
            return Progress::Unfinished;
        };
        match first == second && self.lock().sources.len() == sources.len() {
            true => Progress::Idle,
            false => Progress::Changed,
        }
    }

    pub(crate) fn report(&self) -> DrainReport {
        let mut report = DrainReport::default();
        let sources: Vec<_> = self.lock().sources.clone();
        for (source, start) in sources {
            let now = source.outcomes();
            report.succeeded += now.succeeded - start.succeeded;
            report.failed += now.failed - start.failed;
            report.skipped += now.skipped - start.skipped;
            report.lost += now.lost - start.lost;
            report.unfinished.extend(source.snapshot());
            report.running_handlers += source.counts().handlers as u64;
        }
        report
    }

    fn sources(&self) -> Vec<Arc<dyn DrainSource>> {
        let sources = self.lock();
        sources
            .sources
            .iter()
            .map(|(source, _)| source.clone())
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, Sources> {
        self.sources.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A layer's store, as far as a drain needs it.
pub(crate) trait DrainSource: Send + Sync {
    /// Counts unfinished work. If there is some, [`idle`](Self::idle) is notified when it has ended.
    fn scan(&self) -> Scan;

    fn counts(&self) -> Counts;

    fn outcomes(&self) -> OutcomeCounts;

    fn snapshot(&self) -> Vec<UnfinishedCallback>;

    fn idle(&self) -> &Notify;
}

/// Work that is not finished.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Callbacks that are registered and have not started.
    pub(crate) pending: usize,
    /// Callbacks that were taken to run and have not ended.
    pub(crate) running: usize,
    /// Handlers that are run to completion.
    pub(crate) handlers: usize,
}

/// The number of callbacks that ended, by outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct OutcomeCounts {
    pub(crate) succeeded: u64,
    pub(crate) failed: u64,
    pub(crate) skipped: u64,
    pub(crate) lost: u64,
}

/// One scan of all shards of a store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Scan {
    pub(crate) unfinished: usize,
    /// Work that was ever registered. An unchanged sum shows that nothing was registered in between.
    pub(crate) registered: u64,
}

impl Counts {
    pub(crate) fn unfinished(&self) -> usize {
        self.pending + self.running + self.handlers
    }
}

/// State that the connections of a server share.
#[cfg(feature = "serve")]
pub(crate) struct Server {
    pub(crate) shutdown: ShutdownSignal,
    /// The layers to drain; `None` without a graceful shutdown.
    pub(crate) drain: Option<Drain>,
}

#[cfg(feature = "serve")]
impl Server {
    /// Adds a layer to the drain.
    pub(crate) fn drain_with(&self, source: &Arc<impl DrainSource + 'static>) {
        if let Some(drain) = &self.drain {
            drain.add(source);
        }
    }
}

/// The signal that begins the shutdown of a server, and the guards that the server waits for.
#[cfg(feature = "serve")]
#[derive(Clone, Default)]
pub(crate) struct ShutdownSignal {
    token: CancellationToken,
    guards: TaskTracker,
}

#[cfg(feature = "serve")]
impl ShutdownSignal {
    /// Returns a guard that begins the shutdown when it is dropped.
    pub(crate) fn drop_guard(&self) -> DropGuard {
        self.token.clone().drop_guard()
    }

    /// Returns a token that is cancelled when the shutdown begins.
    pub(crate) fn token(&self) -> &CancellationToken {
        &self.token
    }

    /// Returns a guard for which the server waits.
    pub(crate) fn guard(&self) -> TaskTrackerToken {
        self.guards.token()
    }

    /// Returns the number of guards.
    pub(crate) fn guards(&self) -> usize {
        self.guards.len()
    }

    /// Waits until all guards are dropped.
    pub(crate) async fn wait_for_guards(&self) {
        self.guards.close();
        self.guards.wait().await;
    }
}

/// Waits for a future, up to the deadline if there is one. Returns `true` if it was in time.
pub(crate) async fn timeout_at(deadline: Option<Instant>, future: impl Future) -> bool {
    match deadline {
        Some(deadline) => tokio::time::timeout_at(deadline, future).await.is_ok(),
        None => {
            future.await;
            true
        }
    }
}

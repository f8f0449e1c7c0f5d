//! What a drain saw.

use std::{borrow::Cow, fmt, panic::Location, sync::Arc, time::Duration};

use crate::observe::scope_info::{RequestInfo, ScopeInfo};

/// What a drain saw, from its start to its end.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// use std::time::Duration;
/// use axum_defer::{DeferLayer, defer};
///
/// let layer = DeferLayer::new();
/// let deferred = layer.handle();
///
/// layer
///     .scope(async {
///         defer(async {}).name("mail");
///         // Nothing has run yet, and nobody waits for long.
///         let report = deferred.drain(Duration::ZERO).await;
///         assert!(!report.is_complete());
///         assert_eq!(report.unfinished.len(), 1);
///         println!("{report}");
///     })
///     .await;
///
/// let report = deferred.drain(Duration::from_secs(20)).await;
/// assert!(report.is_complete());
/// # }
/// ```
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
    /// Callbacks that were pending or running at the deadline, too, and can't be named: they came by
    /// another server of the same app, which nobody asks for a report, before the first one of this
    /// server.
    pub unfinished_unlisted: u64,
    /// Handlers that were being
    /// [run to completion](crate::DeferLayer::run_to_completion) at the deadline.
    pub unfinished_handlers: u64,
    /// Connections of [`serve`](crate::guide::shutdown) that were cut because they were not over in time:
    /// a response, or the body of a request, was still under way, or its HTTP/2 client did not let
    /// go. What is closed because nothing is under way on it does not count.
    pub cut_connections: u64,
    /// How many `Shutdown`s were still held at the deadline, by tasks that the server did not
    /// start: those of upgraded connections, say. Each clone counts.
    pub unfinished_holders: u64,
}

impl DrainReport {
    /// Whether nothing was left unfinished, cut or lost.
    pub fn is_complete(&self) -> bool {
        self.unfinished.is_empty()
            && self.unfinished_unlisted == 0
            && self.unfinished_handlers == 0
            && self.cut_connections == 0
            && self.unfinished_holders == 0
            && self.lost == 0
    }
}

impl fmt::Display for DrainReport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "deferred callbacks while draining: {} ran, {} failed, {} skipped, {} lost, {} unfinished",
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
        let left = [
            (self.unfinished_unlisted, "unlisted callback", "unfinished"),
            (self.unfinished_handlers, "handler", "unfinished"),
            (self.cut_connections, "connection", "cut"),
            (self.unfinished_holders, "`Shutdown`", "still held"),
        ];
        for (count, what, how) in left {
            match count {
                0 => {}
                1 => write!(formatter, "; 1 {what} {how}")?,
                _ => write!(formatter, "; {count} {what}s {how}")?,
            }
        }
        Ok(())
    }
}

/// A callback that was not finished, when a drain ended or a
/// [snapshot](crate::DeferHandle::snapshot) was taken.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// use axum_defer::{DeferLayer, defer};
///
/// let layer = DeferLayer::new();
/// let deferred = layer.handle();
/// layer
///     .scope(async {
///         defer(async {}).name("mail");
///         let callbacks = deferred.snapshot();
///         let mail = &callbacks[0];
///         assert_eq!(mail.name(), Some("mail"));
///         assert!(!mail.is_running() && mail.request().is_none());
///         println!("{} has waited for {:?}", mail.location(), mail.age());
///     })
///     .await;
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnfinishedCallback {
    pub(crate) name: Option<Cow<'static, str>>,
    pub(crate) location: &'static Location<'static>,
    pub(crate) running: bool,
    pub(crate) age: Option<Duration>,
    pub(crate) scope: Option<Arc<ScopeInfo>>,
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

    /// For how long it had been running, or pending since it was registered.
    ///
    /// `None` where nobody was there to ask when it was registered: neither a
    /// [handle](crate::DeferLayer::handle), nor an observer, nor a subscriber of `tracing`.
    pub fn age(&self) -> Option<Duration> {
        self.age
    }

    /// The request that it belongs to; `None` for a [`scope`](crate::scope()), and where nobody
    /// was there to ask when the request came.
    pub fn request(&self) -> Option<&RequestInfo> {
        self.scope.as_ref()?.request.as_ref()
    }
}

impl fmt::Display for UnfinishedCallback {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(name) = self.name() {
            write!(formatter, "{name} ")?;
        }
        let state = if self.running { "running" } else { "pending" };
        write!(formatter, "({}, {state}", self.location)?;
        if let Some(request) = self.request() {
            write!(formatter, ", {request}")?;
        }
        formatter.write_str(")")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_cut_is_said_and_makes_a_drain_incomplete() {
        let report = |cut_connections, unfinished_holders| DrainReport {
            cut_connections,
            unfinished_holders,
            ..DrainReport::default()
        };
        let nothing =
            "deferred callbacks while draining: 0 ran, 0 failed, 0 skipped, 0 lost, 0 unfinished";
        assert!(report(0, 0).is_complete());
        assert_eq!(report(0, 0).to_string(), nothing);
        for (report, said) in [
            (report(1, 0), "; 1 connection cut"),
            (report(2, 0), "; 2 connections cut"),
            (report(0, 1), "; 1 `Shutdown` still held"),
            (
                report(2, 2),
                "; 2 connections cut; 2 `Shutdown`s still held",
            ),
        ] {
            assert!(!report.is_complete(), "{said}");
            assert_eq!(report.to_string(), format!("{nothing}{said}"));
        }
    }
}

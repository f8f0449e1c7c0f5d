//! The report of a drain.

use std::{fmt, panic::Location, sync::Arc, time::Duration};

use crate::{
    callback::entry::Name,
    observe::{
        scope_info::{RequestInfo, ScopeInfo},
        text::OneLine,
    },
};

/// The outcomes of a drain, from its start to its end.
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
///         // Nothing has run yet.
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
    /// Callbacks that succeeded.
    pub succeeded: u64,
    /// Callbacks that returned an error, panicked, or timed out.
    pub failed: u64,
    /// Callbacks that their rule did not allow to run.
    pub skipped: u64,
    /// Callbacks that should have run and could not.
    pub lost: u64,
    /// Callbacks that were pending or running at the deadline.
    pub unfinished: Vec<UnfinishedCallback>,
    /// Handlers that were [run to completion](crate::DeferLayer::run_to_completion), or whose body was
    /// [finished](crate::DeferLayer::finish_body) without its client, and that had not ended at the
    /// deadline.
    pub running_handlers: u64,
    /// Connections of [`serve`](crate::guide::shutdown) that were closed while a response or a
    /// request body was in progress, or because their HTTP/2 client did not close them.
    pub aborted_connections: u64,
    /// `Shutdown` guards that tasks still held at the deadline. Each clone counts.
    pub shutdown_guards: u64,
}

impl DrainReport {
    /// Returns `true` if nothing was left unfinished, aborted, or lost.
    pub fn is_complete(&self) -> bool {
        self.unfinished.is_empty()
            && self.running_handlers == 0
            && self.aborted_connections == 0
            && self.shutdown_guards == 0
            && self.lost == 0
    }
}

impl fmt::Display for DrainReport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "deferred callbacks while draining: {} succeeded, {} failed, {} skipped, {} lost, {} \
             unfinished",
            self.succeeded,
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
            (self.running_handlers, "handler", "running"),
            (self.aborted_connections, "connection", "aborted"),
            (self.shutdown_guards, "`Shutdown`", "held"),
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

/// A callback that was not finished when a drain ended or a
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
    pub(crate) name: Option<Name>,
    pub(crate) location: &'static Location<'static>,
    pub(crate) running: bool,
    pub(crate) age: Option<Duration>,
    pub(crate) scope: Option<Arc<ScopeInfo>>,
}

impl UnfinishedCallback {
    /// Returns the name given with [`DeferredCallback::name`](crate::DeferredCallback::name).
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Returns the location of the call of `defer`.
    pub fn location(&self) -> &'static Location<'static> {
        self.location
    }

    /// Returns `true` if it had started.
    pub fn is_running(&self) -> bool {
        self.running
    }

    /// Returns how long it had been running, or how long ago the request of a pending callback had
    /// arrived.
    ///
    /// `None` if neither a [handle](crate::DeferLayer::handle), nor an observer, nor a subscriber of
    /// `tracing` existed at that time.
    pub fn age(&self) -> Option<Duration> {
        self.age
    }

    /// Returns the request that it belongs to. `None` for a [`scope`](crate::scope()), and in the cases
    /// in which [`age`](Self::age) is `None`.
    pub fn request(&self) -> Option<&RequestInfo> {
        self.scope.as_ref()?.request()
    }
}

impl fmt::Display for UnfinishedCallback {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(name) = self.name() {
            write!(formatter, "{} ", OneLine(name))?;
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
    fn report_with_aborted_work_is_incomplete() {
        let report = |aborted_connections, shutdown_guards| DrainReport {
            aborted_connections,
            shutdown_guards,
            ..DrainReport::default()
        };
        let nothing = "deferred callbacks while draining: 0 succeeded, 0 failed, 0 skipped, 0 lost, \
                       0 unfinished";
        assert!(report(0, 0).is_complete());
        assert_eq!(report(0, 0).to_string(), nothing);
        for (report, text) in [
            (report(1, 0), "; 1 connection aborted"),
            (report(2, 0), "; 2 connections aborted"),
            (report(0, 1), "; 1 `Shutdown` held"),
            (report(2, 2), "; 2 connections aborted; 2 `Shutdown`s held"),
        ] {
            assert!(!report.is_complete(), "{text}");
            assert_eq!(report.to_string(), format!("{nothing}{text}"));
        }
    }
}

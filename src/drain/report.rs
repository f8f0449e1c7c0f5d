//! What a drain saw.

use std::{borrow::Cow, fmt, panic::Location, sync::Arc, time::Duration};

use crate::observe::scope_info::{RequestInfo, ScopeInfo};

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

/// A callback that was not finished, when a drain ended or a
/// [snapshot](crate::DeferHandle::snapshot) was taken.
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

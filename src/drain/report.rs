//! What a drain saw.

use std::{borrow::Cow, fmt, panic::Location};

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

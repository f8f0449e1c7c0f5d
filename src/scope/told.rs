//! What others are told of a scope's callbacks.

use std::time::Duration;

use super::{Scope, queue::Queue};
use crate::{
    callback::entry::{BoxEntry, Header, Observed},
    clock::Instant,
    completion::Completion,
    drain::{report::UnfinishedCallback, shard::Unfinished},
    observe::callback_info::{self, CallbackInfo},
};

impl Scope {
    /// The callback was taken out: its name is final. Tells of the registration if the handle
    /// has not done so yet.
    #[inline]
    pub(crate) fn announce(&self, entry: &BoxEntry) {
        // Nobody was told when it was registered, or is now.
        if entry.header.observed().is_some() {
            self.announce_observed(entry);
        }
    }

    fn announce_observed(&self, entry: &BoxEntry) {
        let info = self.info(&entry.header);
        #[cfg(feature = "tracing")]
        crate::observe::trace::record_name(&info);
        if !entry.header.announced && self.options.observers.hear_registrations() {
            self.options.observers.registered(&info);
        }
    }

    /// What observers are told that the callback is.
    pub(crate) fn info<'a>(&'a self, header: &'a Header) -> CallbackInfo<'a> {
        CallbackInfo {
            id: header.observed_id(),
            name: header.name.as_deref(),
            location: header.location,
            phase: header.phase,
            scope: self.info.as_deref(),
            #[cfg(feature = "tracing")]
            span: header.span(),
        }
    }

    /// Fills in what is only kept of a callback where somebody is told of it.
    #[inline]
    pub(crate) fn observe(&self, header: &mut Header) {
        if self.info.is_some() || self.options.observers.hear_times() {
            self.observe_it(header);
        }
    }

    fn observe_it(&self, header: &mut Header) {
        let id = callback_info::next_id();
        let observed = Observed {
            id,
            registered: Instant::now(),
            #[cfg(feature = "tracing")]
            span: self.options.observers.span(&CallbackInfo {
                id,
                name: None,
                location: header.location,
                phase: header.phase,
                scope: self.info.as_deref(),
                span: None,
            }),
        };
        header.observe(observed);
    }

    /// How long a callback that starts now has waited since it could have.
    pub(crate) fn waited(
        &self,
        header: &Header,
        completion: &Completion,
        now: Instant,
    ) -> Duration {
        let decided = self.opened + completion.elapsed();
        let ready = match header.observed() {
            Some(observed) => observed.registered.max(decided),
            None => decided,
        };
        now.saturating_duration_since(ready)
    }
}

impl Unfinished for Scope {
    fn unfinished(&self) -> Vec<UnfinishedCallback> {
        self.step(|state| {
            let pending = state.queues().flat_map(Queue::headers).map(|header| {
                let observed = header.observed();
                UnfinishedCallback {
                    name: header.name.clone(),
                    location: header.location,
                    running: false,
                    age: observed.map(|observed| observed.registered.elapsed()),
                    scope: self.info.clone(),
                }
            });
            let running = state.in_progress.unfinished(self.info.as_ref());
            running.chain(pending).collect()
        })
    }
}

//! Data of a scope's callbacks for observers and subscribers.

use std::time::Duration;

use super::Scope;
use crate::{
    callback::entry::{Header, Observed},
    clock::Instant,
    completion::Completion,
    observe::callback_info::{self, CallbackInfo},
};

impl Scope {
    /// Fills in the data that is only kept if an observer or a subscriber needs it.
    #[inline]
    pub(crate) fn observe(&self, header: &mut Header) {
        let interest = self.interest;
        if interest.observers || interest.timing || interest.spans {
            self.fill_in(header);
        }
    }

    fn fill_in(&self, header: &mut Header) {
        let interest = self.interest;
        #[cfg(feature = "tracing")]
        let needs_id = interest.observers || self.options.observers.make_span.is_some();
        #[cfg(not(feature = "tracing"))]
        let needs_id = interest.observers;
        let id = if needs_id {
            callback_info::next_id()
        } else {
            0
        };
        #[cfg(feature = "tracing")]
        let span = match interest.spans {
            true => self.options.observers.span(&CallbackInfo {
                id,
                ..self.callback_info(header)
            }),
            false => None,
        };
        #[cfg(feature = "tracing")]
        if span.is_none() && !interest.observers && !interest.timing {
            return;
        }
        header.observe(Observed {
            id,
            registered: Instant::now(),
            #[cfg(feature = "tracing")]
            span,
        });
    }

    /// Reports the name of a callback whose name is final, and its registration unless its handle
    /// has done so.
    #[inline]
    pub(crate) fn announce(&self, header: &Header) {
        if header.observed().is_some() {
            self.announce_observed(header);
        }
    }

    fn announce_observed(&self, header: &Header) {
        let info = self.callback_info(header);
        #[cfg(feature = "tracing")]
        crate::observe::tracing::record_name(&info);
        if !header.announced && self.interest.observers {
            self.options.observers.registered(&info);
        }
    }

    pub(crate) fn callback_info<'a>(&'a self, header: &'a Header) -> CallbackInfo<'a> {
        CallbackInfo {
            id: header.observed_id(),
            name: header.name.as_deref(),
            location: header.location,
            phase: header.phase,
            scope: self.info.as_deref(),
            #[cfg(feature = "tracing")]
            uses_default_rule: header.rule == crate::callback::entry::Rule::Layer,
            #[cfg(feature = "tracing")]
            span: header.span(),
        }
    }

    /// Returns how long a callback that starts now has waited since it could have started.
    pub(crate) fn queue_time(
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

//! Changes that a handle can make to a callback, and reads of a scope's callbacks.

use std::{sync::Arc, time::Duration};

use super::{
    Registration, Scope,
    queue::{Queue, Renamed},
    state::{ScopeState, Start},
};
use crate::{
    callback::entry::{BoxEntry, Competition, Header, Name, Predicate, Rule},
    catch_panic::drop_catching_panic,
    observe::{
        callback_info::{CallbackInfo, Phase},
        dispatch::Observers,
    },
};

impl Scope {
    pub(crate) fn set_rule(
        &self,
        registration: Registration,
        rule: Rule,
        predicate: Option<Box<Predicate>>,
    ) {
        let mut predicate = predicate;
        let previous = self.edit(registration, |header| {
            header.set_rule(rule, predicate.take())
        });
        drop_catching_panic((previous, predicate));
    }

    pub(crate) fn set_timeout(&self, registration: Registration, timeout: Duration) {
        self.edit(registration, |header| header.set_timeout(timeout));
    }

    pub(crate) fn set_competition(&self, registration: Registration, competition: Competition) {
        self.edit(registration, |header| header.set_competition(competition));
    }

    fn edit<T>(
        &self,
        Registration { phase, id }: Registration,
        edit: impl FnOnce(&mut Header) -> T,
    ) -> Option<T> {
        self.with_entry(|state, _| state.queue_mut(phase).header_mut(id).map(edit))?
    }

    pub(crate) fn rename(&self, Registration { phase, id }: Registration, name: Name) {
        let replaced = self.with_entry(|state, counts| {
            let replaced = match state.queue_mut(phase).rename(id, name) {
                Renamed::Missing => None,
                Renamed::Named(replaced) => replaced,
                Renamed::Superseded(entry) => Some(entry),
            };
            counts.pending -= usize::from(replaced.is_some());
            replaced
        });
        if let Some(replaced) = replaced.flatten() {
            self.report_removed(replaced, Observers::replaced);
        }
    }

    /// Removes a callback that has not started. Returns `true` if it will not run.
    pub(crate) fn cancel(&self, Registration { phase, id }: Registration) -> bool {
        self.remove(|state| state.queue_mut(phase).remove(id))
    }

    /// Removes the callbacks with this name, one per phase at most, and returns their number.
    pub(crate) fn forget(&self, name: &str) -> usize {
        let phases = [Phase::Before, Phase::After];
        let forget = |phase: &Phase| {
            self.remove(|state| {
                let queue = state.existing_queue_mut(*phase)?;
                queue.remove_named(name)
            })
        };
        phases.iter().filter(|phase| forget(phase)).count()
    }

    fn remove(&self, remove: impl FnOnce(&mut ScopeState) -> Option<BoxEntry>) -> bool {
        let (removed, is_idle) = {
            let mut shard = self.lock();
            let shard = &mut *shard;
            let removed = shard
                .scopes
                .get_mut(self.key())
                .and_then(|state| remove(state));
            shard.counts.pending -= usize::from(removed.is_some());
            (removed, shard.take_idle())
        };
        if is_idle {
            self.options.store.notify_idle();
        }
        let is_removed = removed.is_some();
        if let Some(entry) = removed {
            self.report_removed(entry, Observers::cancelled);
        }
        is_removed
    }

    /// Reports and drops a callback that left the queue without running.
    fn report_removed(&self, entry: BoxEntry, report: impl FnOnce(&Observers, &CallbackInfo<'_>)) {
        self.announce(&entry.header);
        report(&self.options.observers, &self.callback_info(&entry.header));
        #[cfg(feature = "metrics")]
        crate::observe::metrics::pending(-1.0);
        drop_catching_panic(entry);
        self.callback_ended(1);
    }

    /// Makes the name and the rule of a callback final. A held callback may run from now on.
    pub(crate) fn handle_dropped(
        self: &Arc<Self>,
        registration: Registration,
        held: bool,
    ) -> Option<Start> {
        let announced = self.interest.observers && self.announce_registration(registration);
        if registration.phase == Phase::Before || !(held || announced) {
            return None;
        }
        let ready = {
            let mut shard = self.lock();
            let shard = &mut *shard;
            let state = shard.scopes.get_mut(self.key())?;
            state.queue_mut(Phase::After).release(registration.id);
            state.start_if_ready(&mut shard.counts, self.hands_over(), || self.now())
        };
        if let Some(waker) = ready.waker {
            waker.wake();
        }
        ready.start
    }

    /// Reports the registration of a callback that has not started, once. The callback is held
    /// during the report, so that it does not start before observers know of it.
    fn announce_registration(&self, Registration { phase, id }: Registration) -> bool {
        let registered = self.with_entry(|state, _| {
            let queue = state.queue_mut(phase);
            let header = queue.header_mut(id)?;
            if std::mem::replace(&mut header.announced, true) {
                return None;
            }
            let id_and_name = (header.observed_id(), header.name.clone(), header.location);
            if phase == Phase::After {
                queue.hold(id);
            }
            Some(id_and_name)
        });
        let Some((id, name, location)) = registered.flatten() else {
            return false;
        };
        self.options.observers.registered(&CallbackInfo {
            id,
            name: name.as_deref(),
            location,
            phase,
            scope: self.info.as_deref(),
            #[cfg(feature = "tracing")]
            uses_default_rule: false,
            #[cfg(feature = "tracing")]
            span: None,
        });
        true
    }

    pub(crate) fn contains(&self, name: &str) -> bool {
        let contains = |state: &mut ScopeState| state.queues().any(|queue| queue.contains(name));
        self.with_entry(|state, _| contains(state)).unwrap_or(false)
    }

    pub(crate) fn len(&self) -> usize {
        let len = |state: &mut ScopeState| state.queues().map(Queue::len).sum();
        self.with_entry(|state, _| len(state)).unwrap_or(0)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn names(&self) -> Vec<String> {
        let names = self.with_entry(|state, _| {
            let headers = state.queues().flat_map(Queue::headers);
            headers
                .filter_map(|header| header.name.clone())
                .collect::<Vec<_>>()
        });
        let names = names.unwrap_or_default();
        names.iter().map(|name| String::from(&**name)).collect()
    }
}

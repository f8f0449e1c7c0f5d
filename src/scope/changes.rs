//! What is done to callbacks that wait: named, changed, withdrawn.

use std::{borrow::Cow, time::Duration};

use super::{
    Scope,
    queue::Named,
    state::{Registration, Start, State},
};
use crate::{
    callback::{entry::BoxEntry, rule::Rule},
    drain::tally::End,
    isolate::drop_isolated,
    observe::{callback_info::CallbackInfo, observers::Observers, phase::Phase},
};

impl Scope {
    pub(crate) fn set_rule(&self, registration: Registration, rule: Rule) {
        let mut rule = Some(rule);
        // What was there before may be a predicate of the user's, and so is dropped unlocked.
        let old = self.step(|state| match state.header_mut(registration) {
            Some(header) => rule
                .take()
                .map(|rule| std::mem::replace(&mut header.rule, rule)),
            None => rule.take(),
        });
        drop_isolated(old);
    }

    pub(crate) fn set_timeout(&self, registration: Registration, timeout: Duration) {
        self.step(|state| {
            if let Some(header) = state.header_mut(registration) {
                header.limits_mut().timeout = Some(timeout);
            }
        });
    }

    pub(crate) fn rename(&self, registration: Registration, name: Cow<'static, str>) {
        let (named, duplicate) = self.step(|state| {
            let mut named = state
                .queue_of(registration.phase)
                .rename(registration.id, name);
            if let Named::Replaced(Some(replaced)) = &mut named {
                // The name is free, for the callback that has it now.
                replaced.as_mut().header_mut().give_up_claim();
            }
            (named, self.claim(state, registration))
        });
        if let Named::Replaced(Some(entry)) | Named::Outranked(entry) = named {
            self.drop_pending(entry, Observers::replaced);
        }
        if let Some(duplicate) = duplicate {
            self.drop_pending(duplicate, Observers::duplicate);
        }
    }

    /// It is to be the only one of its name in the layer.
    pub(crate) fn make_unique(&self, registration: Registration) {
        let duplicate = self.step(|state| {
            if let Some(header) = state.header_mut(registration) {
                header.limits_mut().unique = true;
            }
            self.claim(state, registration)
        });
        if let Some(duplicate) = duplicate {
            self.drop_pending(duplicate, Observers::duplicate);
        }
    }

    /// Claims the name of a callback that is to be unique; one that can't have it is out.
    fn claim(&self, state: &mut State, registration: Registration) -> Option<BoxEntry> {
        let header = state.header_mut(registration)?;
        if !header.is_unique() {
            return None;
        }
        // Of the name that it had before.
        header.give_up_claim();
        let name = header.name.as_ref()?;
        let claim = self.options.unique_names.claim(registration.phase, name);
        if claim.is_none() {
            return state.remove(registration);
        }
        header.limits_mut().claim = claim;
        None
    }

    pub(crate) fn cancel(&self, registration: Registration) -> bool {
        let entry = self.step(|state| state.remove(registration));
        self.withdraw(entry)
    }

    /// Takes out what has this name, in either phase; how many that were.
    pub(crate) fn forget(&self, name: &str) -> usize {
        let (before, after) = self.step(|state| {
            let before = state.before.as_mut();
            let before = before.and_then(|before| before.queue.remove_named(name));
            (before, state.queue.remove_named(name))
        });
        usize::from(self.withdraw(before)) + usize::from(self.withdraw(after))
    }

    fn withdraw(&self, entry: Option<BoxEntry>) -> bool {
        let Some(entry) = entry else { return false };
        self.drop_pending(entry, Observers::cancelled);
        true
    }

    /// A callback that somebody wanted not to run; its observers are told why.
    fn drop_pending(&self, entry: BoxEntry, tell: impl FnOnce(&Observers, &CallbackInfo<'_>)) {
        self.announce(&entry);
        tell(&self.options.observers, &self.info(&entry.header));
        self.options
            .tracker
            .dropped(self.options.shard, End::Withdrawn, false);
        drop_isolated(entry);
    }

    /// The handle of a callback is gone: its name and its rule are final, and it may run.
    pub(crate) fn settled(&self, registration: Registration) -> Start {
        self.announce_settled(registration);
        let released = self.step(|state| {
            // Nobody holds one of the first phase.
            if registration.phase == Phase::After {
                state.queue.release(registration.id);
            }
            state.pushed()
        });
        released.go_on()
    }

    fn announce_settled(&self, registration: Registration) {
        if !self.options.observers.hear_registrations() {
            return;
        }
        let info = self.step(|state| {
            let header = state.header_mut(registration)?;
            let is_first = !std::mem::replace(&mut header.announced, true);
            let info =
                is_first.then(|| (header.observed_id(), header.name.clone(), header.location))?;
            if registration.phase == Phase::After {
                // It must not start before everybody was told of it.
                state.queue.hold(registration.id);
            }
            Some(info)
        });
        if let Some((id, name, location)) = info {
            self.options.observers.registered(&CallbackInfo {
                id,
                name: name.as_deref(),
                location,
                phase: registration.phase,
                scope: self.info.as_deref(),
                #[cfg(feature = "tracing")]
                span: None,
            });
        }
    }
}

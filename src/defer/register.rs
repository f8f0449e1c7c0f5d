//! Registration: the path of a callback into its scope.

use std::{panic::Location, sync::Arc};

use super::deferred_callback::{BeforeResponseCallback, DeferredCallback};
use crate::{
    callback::{
        deferrable::Callback,
        entry::{BoxEntry, Entry, Header},
        wrap::wrapped,
    },
    catch_panic::drop_catching_panic,
    observe::callback_info::Phase,
    runner,
    scope::{Current, Role, Scope, current},
};

#[inline]
pub(super) fn register(
    current: Current,
    location: &'static Location<'static>,
    callback: impl Callback + 'static,
) -> DeferredCallback {
    let Current { scope, role } = current;
    let entry = entry(&scope, location, Phase::After, callback);
    // The runner may be at work on another thread, so the callback waits for its handle.
    let held = role == Role::External;
    match scope.push(entry, held) {
        Ok((registration, start)) => {
            if start.is_some() {
                runner::start(scope.clone(), start);
            }
            DeferredCallback::new(scope, registration, held)
        }
        Err(_) => unreachable!("only callbacks before the response can be too late"),
    }
}

/// Returns `None` if the head of the response is released.
pub(super) fn register_before(
    current: Current,
    location: &'static Location<'static>,
    callback: impl Callback + 'static,
) -> Option<BeforeResponseCallback> {
    let Current { scope, .. } = current;
    let entry = entry(&scope, location, Phase::Before, callback);
    match scope.push(entry, false) {
        // No runner starts: the response future runs it.
        Ok((registration, _)) => Some(BeforeResponseCallback::new(scope, registration)),
        Err(entry) => {
            drop_catching_panic(entry);
            None
        }
    }
}

#[inline]
fn entry(
    scope: &Arc<Scope>,
    location: &'static Location<'static>,
    phase: Phase,
    callback: impl Callback + 'static,
) -> BoxEntry {
    let mut header = Header::new(location, phase);
    scope.observe(&mut header);
    match scope.options.wrap.clone() {
        None => Box::pin(Entry::new(header, callback)),
        Some(wrap) => {
            let completion =
                move || current::get().and_then(|current| current.scope.completion_in(phase));
            Box::pin(Entry::new(header, wrapped(&*wrap, completion, callback)))
        }
    }
}

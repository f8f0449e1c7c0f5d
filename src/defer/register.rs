//! The way of a callback into its scope.

use std::panic::Location;

use super::deferred_callback::DeferredCallback;
use crate::{
    callback::{
        callback_future::{CallbackFuture, Wrap},
        code::Callback,
        deferrable::Deferrable,
        entry::{BoxEntry, Entry, Header},
        output::{CallbackEnd, Failure},
    },
    observe::phase::Phase,
    runner,
    scope::{
        Scope,
        current::{self, Current},
    },
};

pub(super) fn register(
    current: Current,
    location: &'static Location<'static>,
    callback: impl Callback + 'static,
) -> DeferredCallback {
    let Current { scope, is_driven } = current;
    let entry = entry(&scope, location, Phase::After, callback);
    // Where the runner may be at work on another thread, it has to wait for the handle.
    let holds = !is_driven;
    let (id, start) = scope.push(entry, holds);
    runner::start(&scope, start);
    DeferredCallback::new(scope, id, holds)
}

/// `None` when it is too late.
pub(super) fn register_before(
    current: Current,
    location: &'static Location<'static>,
    callback: impl Callback + 'static,
) -> Option<DeferredCallback> {
    let Current { scope, .. } = current;
    let entry = entry(&scope, location, Phase::Before, callback);
    let registration = scope.push_before(entry)?;
    Some(DeferredCallback::new(scope, registration, false))
}

fn entry(
    scope: &Scope,
    location: &'static Location<'static>,
    phase: Phase,
    callback: impl Callback + 'static,
) -> BoxEntry {
    let mut header = Header::new(location, phase);
    scope.observe(&mut header);
    match scope.options.wrap.clone() {
        None => Box::pin(Entry::new(header, callback)),
        Some(wrap) => Box::pin(Entry::new(header, wrapped(&*wrap, phase, callback))),
    }
}

/// The callback inside of the future that the layer's `wrap` puts around it.
fn wrapped(
    wrap: &Wrap,
    phase: Phase,
    callback: impl Callback + 'static,
) -> impl Callback + 'static {
    let mut callback = Box::pin(callback);
    let future = CallbackFuture::new(async move {
        let completion = current::get().and_then(|current| current.scope.completion_in(phase));
        let Some(completion) = completion else {
            // Only a runner polls this, and it does so in the scope whose phase it has begun.
            return CallbackEnd(Err(Failure::Lost));
        };
        std::future::poll_fn(|cx| {
            callback
                .as_mut()
                .poll_callback(cx, &completion)
                .map(CallbackEnd)
        })
        .await
    });
    Deferrable::into_callback(wrap(future))
}

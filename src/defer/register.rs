//! The way of a callback into its scope.

use std::panic::Location;

use super::deferred_callback::DeferredCallback;
use crate::{
    callback::{
        callback_future::{CallbackFuture, Wrap},
        code::Callback,
        deferrable::Deferrable,
        entry::{Entry, Header},
        output::{CallbackEnd, Failure},
    },
    runner,
    scope::current::{self, Current},
};

pub(super) fn register(
    current: Current,
    location: &'static Location<'static>,
    callback: impl Callback + 'static,
) -> DeferredCallback {
    let Current { scope, is_driven } = current;
    let mut header = Header::new(location);
    scope.observe(&mut header);
    let entry = match scope.options.wrap.clone() {
        None => Box::pin(Entry::new(header, callback)) as _,
        Some(wrap) => Box::pin(Entry::new(header, wrapped(&*wrap, callback))) as _,
    };
    // Where the runner may be at work on another thread, it has to wait for the handle.
    let holds = !is_driven;
    let (id, start) = scope.push(entry, holds);
    runner::start(&scope, start);
    DeferredCallback::new(scope, id, holds)
}

/// The callback inside of the future that the layer's `wrap` puts around it.
fn wrapped(wrap: &Wrap, callback: impl Callback + 'static) -> impl Callback + 'static {
    let mut callback = Box::pin(callback);
    let future = CallbackFuture::new(async move {
        let completion = current::get().and_then(|current| current.scope.completion());
        let Some(completion) = completion else {
            // Only the runner polls this, and it does so in the scope that it has fired.
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

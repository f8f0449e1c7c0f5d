//! Tasks of a scope.

use std::{future::Future, pin::Pin, sync::Arc};

use tokio::runtime::Handle;

#[cfg(not(all(test, axum_defer_loom)))]
use crate::catch_panic::catch_panic;

/// A function that spawns a task on something other than a Tokio runtime.
pub(crate) type Spawn = dyn Fn(Pin<Box<dyn Future<Output = ()> + Send>>) + Send + Sync;

/// Spawns a task with the layer's `spawn_with`, or on `runtime`, or on the runtime of the calling
/// thread.
///
/// A response body may be dropped on a thread of another runtime, or of none, so `runtime` is the
/// one on which `defer` was called. The task is dropped if no runtime is left, or if the spawner
/// drops it or panics.
#[cfg(not(all(test, axum_defer_loom)))]
pub(crate) fn spawn(
    spawner: Option<&Arc<Spawn>>,
    runtime: Option<Handle>,
    task: impl Future<Output = ()> + Send + 'static,
) {
    if let Some(spawn) = spawner {
        let _ = catch_panic(|| spawn(Box::pin(task)));
        return;
    }
    match runtime.or_else(|| Handle::try_current().ok()) {
        Some(runtime) => drop(runtime.spawn(task)),
        None => drop(task),
    }
}

#[cfg(all(test, axum_defer_loom))]
pub(crate) fn spawn(
    _: Option<&Arc<Spawn>>,
    _: Option<Handle>,
    task: impl Future<Output = ()> + Send + 'static,
) {
    crate::sync::loom_runtime::spawn(task);
}

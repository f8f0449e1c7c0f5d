//! The scope that the running code belongs to.

use std::sync::Arc;

use crate::scope::Scope;

tokio::task_local! {
    static CURRENT: Arc<Scope>;
}

/// Runs `code` inside the scope.
#[cfg(not(all(test, axum_defer_loom)))]
pub(crate) fn enter<T>(scope: &Arc<Scope>, code: impl FnOnce() -> T) -> T {
    CURRENT.sync_scope(scope.clone(), code)
}

/// All threads of a model share one thread of the operating system, and with it what is local to
/// it; the models use collections instead.
#[cfg(all(test, axum_defer_loom))]
pub(crate) fn enter<T>(_: &Arc<Scope>, code: impl FnOnce() -> T) -> T {
    code()
}

/// The scope that this code runs in.
pub(crate) fn get() -> Option<Arc<Scope>> {
    CURRENT.try_get().ok()
}

/// Carries the current scope into a closure that runs on another thread.
pub(crate) fn carry<T>(closure: impl FnOnce() -> T) -> impl FnOnce() -> T {
    let scope = get();
    move || match scope {
        Some(scope) => CURRENT.sync_scope(scope, closure),
        None => closure(),
    }
}

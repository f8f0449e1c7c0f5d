//! The scope that the running code belongs to.

use std::sync::Arc;

use crate::scope::Scope;

tokio::task_local! {
    static CURRENT: Current;
}

#[derive(Clone)]
struct Current {
    scope: Arc<Scope>,
    /// This is a poll of what the scope itself drives, so its runner is not at work meanwhile.
    polls: bool,
}

/// Runs `code` inside the scope.
pub(crate) fn enter<T>(scope: &Arc<Scope>, code: impl FnOnce() -> T) -> T {
    let scope = scope.clone();
    CURRENT.sync_scope(Current { scope, polls: true }, code)
}

/// The scope that this code runs in.
pub(crate) fn get() -> Option<Arc<Scope>> {
    CURRENT.try_with(|current| current.scope.clone()).ok()
}

/// Whether this code is polled by the scope, and not merely beside it.
pub(crate) fn is_polled_by(scope: &Arc<Scope>) -> bool {
    CURRENT
        .try_with(|current| current.polls && Arc::ptr_eq(&current.scope, scope))
        .unwrap_or(false)
}

/// Carries the current scope into a closure that runs on another thread.
pub(crate) fn carry<T>(closure: impl FnOnce() -> T) -> impl FnOnce() -> T {
    let scope = get();
    move || match scope {
        Some(scope) => {
            let polls = false;
            CURRENT.sync_scope(Current { scope, polls }, closure)
        }
        None => closure(),
    }
}

//! The trait of observers.

use std::time::Duration;

use super::{
    callback_info::CallbackInfo,
    outcome::{Finished, LostReason},
    scope_info::ScopeInfo,
};
use crate::completion::Completion;

/// An observer of the callbacks of a layer, and of the ends of its requests. See
/// [`DeferLayer::observer`](crate::DeferLayer::observer).
///
/// Every method does nothing by default. Methods are called where the event happens: on the task
/// that runs the callbacks, or on the task that registers, cancels, or replaces one. No lock is held.
/// Keep them short, because the next callback of the scope waits. A panic in one is caught.
///
/// The events of one callback are ordered: its [registration](Self::registered), its start, its end.
/// Events of different callbacks may arrive at the same time on several threads.
///
/// Every registered callback ends in exactly one of [`finished`](Self::finished),
/// [`skipped`](Self::skipped), [`cancelled`](Self::cancelled), [`replaced`](Self::replaced),
/// [`deduplicated`](Self::deduplicated), and [`lost`](Self::lost).
///
/// ```
/// use axum_defer::{CallbackInfo, DeferLayer, DeferObserver, Finished, LostReason};
///
/// struct Alert;
///
/// impl DeferObserver for Alert {
///     fn finished(&self, callback: &CallbackInfo<'_>, finished: &Finished<'_>) {
///         if !finished.is_ok() {
///             eprintln!("{callback} failed: {}", finished.outcome);
///         }
///     }
///     fn lost(&self, callback: &CallbackInfo<'_>, reason: LostReason) {
///         eprintln!("{callback} never ran: {reason}");
///     }
/// }
///
/// let layer = DeferLayer::new().observer(Alert);
/// # let _ = layer;
/// ```
///
/// ```
/// use std::time::Duration;
/// use axum_defer::{
///     CallbackInfo, Completion, DeferLayer, DeferObserver, Finished, LostReason, ScopeInfo,
/// };
///
/// /// Prints every event.
/// struct Everything;
///
/// impl DeferObserver for Everything {
///     fn registered(&self, callback: &CallbackInfo<'_>) {
///         println!("{callback} registered");
///     }
///     fn completed(&self, scope: &ScopeInfo, completion: &Completion) {
///         println!("{} ended as {:?}", scope.id(), completion.delivery());
///     }
///     fn started(&self, callback: &CallbackInfo<'_>, queue_time: Duration) {
///         println!("{callback} started after {queue_time:?}");
///     }
///     fn finished(&self, callback: &CallbackInfo<'_>, finished: &Finished<'_>) {
///         println!("{callback} {}", finished.outcome);
///     }
///     fn skipped(&self, callback: &CallbackInfo<'_>, completion: &Completion) {
///         println!("{callback} skipped, the response was {:?}", completion.status());
///     }
///     fn cancelled(&self, callback: &CallbackInfo<'_>) {
///         println!("{callback} cancelled");
///     }
///     fn replaced(&self, callback: &CallbackInfo<'_>) {
///         println!("{callback} replaced");
///     }
///     fn deduplicated(&self, callback: &CallbackInfo<'_>) {
///         println!("{callback} is a duplicate");
///     }
///     fn lost(&self, callback: &CallbackInfo<'_>, reason: LostReason) {
///         println!("{callback} lost: {reason}");
///     }
/// }
///
/// let layer = DeferLayer::new().observer(Everything);
/// # let _ = layer;
/// ```
#[expect(unused_variables, reason = "their names are for the docs")]
pub trait DeferObserver: Send + Sync + 'static {
    /// Called for each registered callback, when the handle that `defer` returned is dropped.
    ///
    /// The callback has its name then. This is the first event of the callback. Exception: if another
    /// thread cancels the callback by its name at that moment, the cancellation may be reported first.
    fn registered(&self, callback: &CallbackInfo<'_>) {}

    /// Called once when the request or other unit of work has ended, before its first callback after
    /// the response [starts](Self::started) or is [skipped](Self::skipped).
    ///
    /// Not called for requests that deferred nothing. The time of the end is
    /// [`ScopeInfo::started_at`] plus [`Completion::elapsed`].
    fn completed(&self, scope: &ScopeInfo, completion: &Completion) {}

    /// Called if a later registration has the same name, so this callback will not run.
    fn replaced(&self, callback: &CallbackInfo<'_>) {}

    /// Called if a callback of the same name in another scope is queued or running, so this one, which
    /// is [`unique`](crate::DeferredCallback::unique) or
    /// [`coalesce`](crate::DeferredCallback::coalesce), will not run.
    fn deduplicated(&self, callback: &CallbackInfo<'_>) {}

    /// Called when the callback starts. `queue_time` is the time since it could have started: since the
    /// end of the response, or since its registration if that was later.
    fn started(&self, callback: &CallbackInfo<'_>, queue_time: Duration) {}

    /// Called when a callback that ran has ended.
    fn finished(&self, callback: &CallbackInfo<'_>, finished: &Finished<'_>) {}

    /// Called if the callback will not run, because its rule does not allow this completion.
    fn skipped(&self, callback: &CallbackInfo<'_>, completion: &Completion) {}

    /// Called when the callback was cancelled or forgotten before it started.
    fn cancelled(&self, callback: &CallbackInfo<'_>) {}

    /// Called if the callback should have run and could not, or was interrupted.
    fn lost(&self, callback: &CallbackInfo<'_>, reason: LostReason) {}
}

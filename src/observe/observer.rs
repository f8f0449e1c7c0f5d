//! Who is told what happens to callbacks.

use std::time::Duration;

use super::{
    callback_info::CallbackInfo,
    outcome::{Finished, LostReason},
    scope_info::ScopeInfo,
};
use crate::completion::Completion;

/// Is told what happens to each callback of a layer, and how each request ends; see
/// [`DeferLayer::observer`](crate::DeferLayer::observer).
///
/// Every method does nothing by default. They are called where the event happens: on the task that
/// runs the callbacks, or on that of whoever cancels, replaces or registers. No lock is held; keep
/// them short, since the next callback of the scope waits. A panic in one is caught and harms
/// nothing.
///
/// Of one callback, events are told in order: its [registration](Self::registered), its start, its
/// end. Of different ones they may be told at the same time, on several threads: each scope has a task of
/// its own, and beside that of one scope, a spawned task may defer or cancel in it. Nothing in
/// the layer puts them in line.
///
/// Every registered callback ends in exactly one of [`finished`](Self::finished),
/// [`skipped`](Self::skipped), [`cancelled`](Self::cancelled), [`replaced`](Self::replaced),
/// [`duplicate`](Self::duplicate) and [`lost`](Self::lost).
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
/// /// Prints all that there is.
/// struct Everything;
///
/// impl DeferObserver for Everything {
///     fn registered(&self, callback: &CallbackInfo<'_>) {
///         println!("{callback} registered");
///     }
///     fn decided(&self, scope: &ScopeInfo, completion: &Completion) {
///         println!("{} ended as {:?}", scope.number(), completion.delivery());
///     }
///     fn started(&self, callback: &CallbackInfo<'_>, waited: Duration) {
///         println!("{callback} started after {waited:?}");
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
///     fn duplicate(&self, callback: &CallbackInfo<'_>) {
///         println!("{callback} is not the only one");
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
    /// A callback was registered.
    ///
    /// Told when the handle that `defer` returned is dropped, so that the callback has its name
    /// by then; at the latest before anything else is told of the callback. Only what another
    /// thread cancels by its name in that very moment may be told before.
    fn registered(&self, callback: &CallbackInfo<'_>) {}

    /// The request, or other unit of work, is over, and this is how it ended.
    ///
    /// Told once, and before its first callback [starts](Self::started) or is
    /// [skipped](Self::skipped), but for those [before the response](crate::before_response). Of a
    /// request in which nothing waits to run, and nobody can defer any more, it is not told. The time
    /// of the end is [arrival](ScopeInfo::arrived) plus [`Completion::elapsed`].
    fn decided(&self, scope: &ScopeInfo, completion: &Completion) {}

    /// A later registration took the name, and this one will not run.
    fn replaced(&self, callback: &CallbackInfo<'_>) {}

    /// Another scope of the layer has a callback of its name pending or running, and this one,
    /// which is to be [`unique`](crate::DeferredCallback::unique), will not run.
    fn duplicate(&self, callback: &CallbackInfo<'_>) {}

    /// The callback starts; it has waited for so long since it could have: since the end of the
    /// response, or its registration if that was later.
    fn started(&self, callback: &CallbackInfo<'_>, waited: Duration) {}

    /// The callback ran and ended, well or badly.
    fn finished(&self, callback: &CallbackInfo<'_>, finished: &Finished<'_>) {}

    /// The callback will not run, because the rule says so for this completion.
    fn skipped(&self, callback: &CallbackInfo<'_>, completion: &Completion) {}

    /// The callback was cancelled or forgotten before it started.
    fn cancelled(&self, callback: &CallbackInfo<'_>) {}

    /// The callback should have run and could not, or was cut off half-way.
    fn lost(&self, callback: &CallbackInfo<'_>, reason: LostReason) {}
}

//! A recorder of callback events, with assertions by name.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::event::{CallbackEvent, RecordedEvent};
use crate::{
    completion::Completion,
    observe::{
        callback_info::CallbackInfo,
        observer::DeferObserver,
        outcome::{Finished, LostReason},
    },
};

/// A recorder of callback events, with assertions.
///
/// Clones share the record. Callbacks are identified by their
/// [name](crate::DeferredCallback::name), or else by the location of `defer` as `file:line`. See
/// [the module](crate::testing) for examples.
///
/// The message of a failed assertion contains the whole record.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// use axum_defer::{DeferLayer, DeferredCallbackCollection, defer, testing::Recorder};
///
/// let recorder = Recorder::new();
/// let layer = DeferLayer::new().observer(recorder.clone());
/// layer
///     .scope(async {
///         defer(async {}).name("mail");
///         defer(async { Err("no ink") }).name("receipt");
///         defer(async {}).name("bill").when(|_| false);
///         defer(async {}).name("mail");
///         defer(async {}).name("cache").cancel();
///     })
///     .await;
///
/// // Exactly these, in this order:
/// recorder.assert_succeeded(["mail"]);
/// recorder.assert_failed(["receipt"]);
/// recorder.assert_skipped(["bill"]);
/// recorder.assert_replaced(["mail"]);
/// recorder.assert_cancelled(["cache"]);
/// recorder.assert_deduplicated([]);
/// recorder.assert_nothing_lost();
///
/// // In any order, or at least these:
/// recorder.assert_succeeded_in_any_order(["mail"]);
/// recorder.assert_succeeded_at_least(["mail"]);
/// assert_eq!(recorder.count("mail"), 2);
///
/// // The lists behind the assertions:
/// assert_eq!(recorder.registered().len(), 5);
/// assert_eq!(recorder.started(), ["receipt", "mail"]);
/// assert_eq!((recorder.succeeded(), recorder.failed()), (vec!["mail".into()], vec!["receipt".into()]));
/// assert_eq!(recorder.failure("receipt").unwrap(), "error: no ink");
/// assert_eq!((recorder.skipped(), recorder.cancelled()), (vec!["bill".into()], vec!["cache".into()]));
/// assert_eq!(recorder.replaced(), ["mail"]);
/// assert!(recorder.deduplicated().is_empty() && recorder.lost().is_empty());
/// assert!(recorder.unfinished().is_empty());
/// assert!(recorder.events().len() > 5);
///
/// // The next part of the test:
/// recorder.clear();
/// recorder.assert_nothing_failed();
/// # }
/// ```
#[derive(Clone, Default)]
pub struct Recorder {
    events: Arc<Mutex<Vec<RecordedEvent>>>,
}

impl Recorder {
    /// Creates a recorder with an empty record.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns all events, in order.
    pub fn events(&self) -> Vec<RecordedEvent> {
        self.lock().clone()
    }

    /// Empties the record, between two parts of a test.
    pub fn clear(&self) {
        self.lock().clear();
    }

    /// Returns the callbacks that were registered, in order.
    ///
    /// A callback counts when the handle that `defer` returned is dropped.
    pub fn registered(&self) -> Vec<String> {
        self.all(|event| matches!(event, CallbackEvent::Registered))
    }

    /// Returns how often a callback of this name was registered.
    pub fn count(&self, name: &str) -> usize {
        let registered = self.registered();
        registered
            .iter()
            .filter(|callback| *callback == name)
            .count()
    }

    /// Returns the callbacks that started, in order.
    pub fn started(&self) -> Vec<String> {
        self.all(|event| matches!(event, CallbackEvent::Started))
    }

    /// Returns the callbacks that succeeded, in the order in which they ended.
    pub fn succeeded(&self) -> Vec<String> {
        self.all(|event| matches!(event, CallbackEvent::Succeeded))
    }

    /// Returns the callbacks that returned an error, panicked, or timed out, in order.
    pub fn failed(&self) -> Vec<String> {
        self.all(|event| matches!(event, CallbackEvent::Failed(_)))
    }

    /// Returns the last failure of the callback with this name, as an
    /// [`Outcome`](crate::Outcome) displays it: `error: ` and the error, `panicked: ` and the
    /// message, or `timed out after 30s`.
    pub fn failure(&self, callback: &str) -> Option<String> {
        self.lock()
            .iter()
            .rev()
            .find_map(|recorded| match &recorded.event {
                CallbackEvent::Failed(failure) if recorded.callback == callback => {
                    Some(failure.clone())
                }
                _ => None,
            })
    }

    /// Returns the callbacks that their rule did not allow to run, in order.
    pub fn skipped(&self) -> Vec<String> {
        self.all(|event| matches!(event, CallbackEvent::Skipped(_)))
    }

    /// Returns the callbacks that were cancelled or forgotten, in order.
    pub fn cancelled(&self) -> Vec<String> {
        self.all(|event| matches!(event, CallbackEvent::Cancelled))
    }

    /// Returns the callbacks that a later one of the same name replaced, in order.
    pub fn replaced(&self) -> Vec<String> {
        self.all(|event| matches!(event, CallbackEvent::Replaced))
    }

    /// Returns the duplicates of callbacks that are [unique](crate::DeferredCallback::unique) or
    /// [coalesced](crate::DeferredCallback::coalesce), in order.
    pub fn deduplicated(&self) -> Vec<String> {
        self.all(|event| matches!(event, CallbackEvent::Deduplicated))
    }

    /// Returns the callbacks that should have run and could not, in order.
    pub fn lost(&self) -> Vec<String> {
        self.all(|event| matches!(event, CallbackEvent::Lost(_)))
    }

    /// Returns the callbacks that were registered and have not ended.
    pub fn unfinished(&self) -> Vec<String> {
        let mut unfinished = Vec::new();
        for recorded in &*self.lock() {
            if recorded.event == CallbackEvent::Registered {
                unfinished.push(recorded.callback.clone());
            } else if recorded.event.is_end() {
                let is_same = |callback: &String| *callback == recorded.callback;
                if let Some(index) = unfinished.iter().position(is_same) {
                    unfinished.remove(index);
                }
            }
        }
        unfinished
    }

    /// Panics unless exactly these callbacks succeeded, in this order.
    #[track_caller]
    pub fn assert_succeeded<'a>(&self, callbacks: impl IntoIterator<Item = &'a str>) {
        self.assert("succeeded", &self.succeeded(), callbacks);
    }

    /// Panics unless exactly these callbacks succeeded, in any order.
    #[track_caller]
    pub fn assert_succeeded_in_any_order<'a>(&self, callbacks: impl IntoIterator<Item = &'a str>) {
        let mut actual = self.succeeded();
        let mut expected: Vec<_> = callbacks.into_iter().collect();
        actual.sort();
        expected.sort_unstable();
        self.assert("succeeded, in any order", &actual, expected);
    }

    /// Panics unless these callbacks succeeded. Others may have succeeded, too.
    #[track_caller]
    pub fn assert_succeeded_at_least<'a>(&self, callbacks: impl IntoIterator<Item = &'a str>) {
        let mut actual = self.succeeded();
        let mut missing = Vec::new();
        for expected in callbacks {
            match actual.iter().position(|actual| actual == expected) {
                Some(index) => drop(actual.remove(index)),
                None => missing.push(expected),
            }
        }
        assert!(
            missing.is_empty(),
            "callbacks that did not succeed: {missing:?}\n{self}"
        );
    }

    /// Panics unless exactly these callbacks failed, in this order.
    #[track_caller]
    pub fn assert_failed<'a>(&self, callbacks: impl IntoIterator<Item = &'a str>) {
        self.assert("failed", &self.failed(), callbacks);
    }

    /// Panics unless their rules did not allow exactly these callbacks, in this order.
    #[track_caller]
    pub fn assert_skipped<'a>(&self, callbacks: impl IntoIterator<Item = &'a str>) {
        self.assert("were skipped", &self.skipped(), callbacks);
    }

    /// Panics unless exactly these callbacks were cancelled or forgotten, in this order.
    #[track_caller]
    pub fn assert_cancelled<'a>(&self, callbacks: impl IntoIterator<Item = &'a str>) {
        self.assert("were cancelled", &self.cancelled(), callbacks);
    }

    /// Panics unless exactly these callbacks were replaced, in this order.
    #[track_caller]
    pub fn assert_replaced<'a>(&self, callbacks: impl IntoIterator<Item = &'a str>) {
        self.assert("were replaced", &self.replaced(), callbacks);
    }

    /// Panics unless exactly these callbacks were duplicates, in this order.
    #[track_caller]
    pub fn assert_deduplicated<'a>(&self, callbacks: impl IntoIterator<Item = &'a str>) {
        self.assert("were deduplicated", &self.deduplicated(), callbacks);
    }

    /// Panics if a callback failed.
    #[track_caller]
    pub fn assert_nothing_failed(&self) {
        self.assert("failed", &self.failed(), []);
    }

    /// Panics if a callback should have run and could not, or has not ended.
    #[track_caller]
    pub fn assert_nothing_lost(&self) {
        self.assert("were lost", &self.lost(), []);
        self.assert("are unfinished", &self.unfinished(), []);
    }

    #[track_caller]
    fn assert<'a>(
        &self,
        ended: &str,
        actual: &[String],
        expected: impl IntoIterator<Item = &'a str>,
    ) {
        let expected: Vec<_> = expected.into_iter().collect();
        assert!(
            actual == expected,
            "callbacks that {ended}\n     found: {}\n  expected: {}\n{self}",
            Listed(actual),
            Listed(&expected),
        );
    }

    fn all(&self, is_it: impl Fn(&CallbackEvent) -> bool) -> Vec<String> {
        self.lock()
            .iter()
            .filter(|recorded| is_it(&recorded.event))
            .map(|recorded| recorded.callback.clone())
            .collect()
    }

    fn record(&self, callback: &CallbackInfo<'_>, event: CallbackEvent) {
        let location = callback.location();
        let location = format!("{}:{}", location.file(), location.line());
        let name = callback.name().map(str::to_owned);
        self.lock().push(RecordedEvent {
            callback: name.unwrap_or_else(|| location.clone()),
            location,
            phase: callback.phase(),
            event,
        });
    }

    fn lock(&self) -> MutexGuard<'_, Vec<RecordedEvent>> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Listed<'a, T>(&'a [T]);

impl<T: fmt::Debug> fmt::Display for Listed<'_, T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            formatter.write_str("none")
        } else {
            write!(formatter, "{:?}", self.0)
        }
    }
}

/// Displays the record as a failed assertion shows it.
impl fmt::Display for Recorder {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let events = self.events();
        if events.is_empty() {
            return formatter.write_str(
                "nothing was recorded: is the recorder an observer of the layer that the request \
                 passed through?",
            );
        }
        formatter.write_str("recorded:")?;
        for recorded in events {
            write!(formatter, "\n  {recorded}")?;
        }
        let unfinished = self.unfinished();
        if !unfinished.is_empty() {
            write!(
                formatter,
                "\nnot ended: {unfinished:?}; without `inline()`, read the response to its end or \
                 drop it, then await `handle.wait_idle()`",
            )?;
        }
        Ok(())
    }
}

impl fmt::Debug for Recorder {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Recorder")
            .field("events", &*self.lock())
            .finish()
    }
}

impl DeferObserver for Recorder {
    fn registered(&self, callback: &CallbackInfo<'_>) {
        self.record(callback, CallbackEvent::Registered);
    }

    fn replaced(&self, callback: &CallbackInfo<'_>) {
        self.record(callback, CallbackEvent::Replaced);
    }

    fn started(&self, callback: &CallbackInfo<'_>, _queue_time: Duration) {
        self.record(callback, CallbackEvent::Started);
    }

    fn finished(&self, callback: &CallbackInfo<'_>, finished: &Finished<'_>) {
        let event = match finished.is_ok() {
            true => CallbackEvent::Succeeded,
            false => CallbackEvent::Failed(finished.outcome.to_string()),
        };
        self.record(callback, event);
    }

    fn skipped(&self, callback: &CallbackInfo<'_>, completion: &Completion) {
        self.record(callback, CallbackEvent::Skipped(completion.clone()));
    }

    fn deduplicated(&self, callback: &CallbackInfo<'_>) {
        self.record(callback, CallbackEvent::Deduplicated);
    }

    fn cancelled(&self, callback: &CallbackInfo<'_>) {
        self.record(callback, CallbackEvent::Cancelled);
    }

    fn lost(&self, callback: &CallbackInfo<'_>, reason: LostReason) {
        self.record(callback, CallbackEvent::Lost(reason));
    }
}

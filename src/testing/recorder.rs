//! Writes down what becomes of each callback, and asserts.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::event::{Event, Recorded};
use crate::{
    completion::Completion,
    observe::{
        callback_info::CallbackInfo,
        observer::DeferObserver,
        outcome::{Finished, LostReason},
    },
};

/// Writes down what becomes of each callback, and asserts.
///
/// Clones share what is written. Callbacks go by their [name](crate::DeferredCallback::name);
/// those without one go by the place where `defer` was called, as `file:line`. See
/// [the module](crate::testing) for how to use it.
///
/// When an assertion fails, its message tells everything that was recorded.
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
/// // What has to be, exactly and in order:
/// recorder.assert_ran(["mail"]);
/// recorder.assert_failed(["receipt"]);
/// recorder.assert_skipped(["bill"]);
/// recorder.assert_replaced(["mail"]);
/// recorder.assert_cancelled(["cache"]);
/// recorder.assert_nothing_lost();
///
/// // What there was, to look at:
/// assert_eq!(recorder.registered().len(), 5);
/// assert_eq!(recorder.started(), ["receipt", "mail"]);
/// assert_eq!((recorder.ran(), recorder.failed()), (vec!["mail".into()], vec!["receipt".into()]));
/// assert_eq!(recorder.failure("receipt").unwrap(), "error: no ink");
/// assert_eq!((recorder.skipped(), recorder.cancelled()), (vec!["bill".into()], vec!["cache".into()]));
/// assert_eq!(recorder.replaced(), ["mail"]);
/// assert!(recorder.duplicates().is_empty() && recorder.lost().is_empty());
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
    events: Arc<Mutex<Vec<Recorded>>>,
}

impl Recorder {
    /// A recorder with an empty record.
    pub fn new() -> Self {
        Self::default()
    }

    /// All that happened, in order.
    pub fn events(&self) -> Vec<Recorded> {
        self.lock().clone()
    }

    /// Forgets what happened so far: between two parts of a test.
    pub fn clear(&self) {
        self.lock().clear();
    }

    /// The callbacks that were registered, in order.
    ///
    /// A callback counts from the moment at which the handle that `defer` returned is dropped.
    pub fn registered(&self) -> Vec<String> {
        self.all(|event| matches!(event, Event::Registered))
    }

    /// The callbacks that started, in order.
    pub fn started(&self) -> Vec<String> {
        self.all(|event| matches!(event, Event::Started))
    }

    /// The callbacks that ran to a good end, in the order in which they ended.
    pub fn ran(&self) -> Vec<String> {
        self.all(|event| matches!(event, Event::Ran))
    }

    /// The callbacks that returned an error, panicked or timed out, in order.
    pub fn failed(&self) -> Vec<String> {
        self.all(|event| matches!(event, Event::Failed(_)))
    }

    /// What the callback of this name failed with, the last time that it did, as an
    /// [`Outcome`](crate::Outcome) displays it: `error: ` and the error, `panicked: ` and the
    /// message, or `timed out after 30s`.
    pub fn failure(&self, callback: &str) -> Option<String> {
        self.lock()
            .iter()
            .rev()
            .find_map(|recorded| match &recorded.event {
                Event::Failed(failure) if recorded.callback == callback => Some(failure.clone()),
                _ => None,
            })
    }

    /// The callbacks that the rule kept from running, in order.
    pub fn skipped(&self) -> Vec<String> {
        self.all(|event| matches!(event, Event::Skipped(_)))
    }

    /// The callbacks that were cancelled or forgotten, in order.
    pub fn cancelled(&self) -> Vec<String> {
        self.all(|event| matches!(event, Event::Cancelled))
    }

    /// The callbacks whose name was taken by a later one, in order.
    pub fn replaced(&self) -> Vec<String> {
        self.all(|event| matches!(event, Event::Replaced))
    }

    /// The callbacks that were to be [unique](crate::DeferredCallback::unique) and were not, in
    /// order.
    pub fn duplicates(&self) -> Vec<String> {
        self.all(|event| matches!(event, Event::Duplicate))
    }

    /// The callbacks that should have run and could not, in order.
    pub fn lost(&self) -> Vec<String> {
        self.all(|event| matches!(event, Event::Lost(_)))
    }

    /// The callbacks that were registered and have not come to an end yet.
    pub fn unfinished(&self) -> Vec<String> {
        let mut unfinished = Vec::new();
        for recorded in &*self.lock() {
            if recorded.event == Event::Registered {
                unfinished.push(recorded.callback.clone());
            } else if recorded.event.is_end() {
                // Of several requests' callbacks of one name it makes no difference which.
                let place = unfinished
                    .iter()
                    .position(|callback| *callback == recorded.callback);
                place.map(|place| unfinished.remove(place));
            }
        }
        unfinished
    }

    /// Panics unless exactly these callbacks ran to a good end, in this order.
    #[track_caller]
    pub fn assert_ran<const N: usize>(&self, callbacks: [&str; N]) {
        self.assert("ran", &self.ran(), &callbacks);
    }

    /// Panics unless exactly these callbacks failed, in this order.
    #[track_caller]
    pub fn assert_failed<const N: usize>(&self, callbacks: [&str; N]) {
        self.assert("failed", &self.failed(), &callbacks);
    }

    /// Panics unless exactly these callbacks were kept from running by the rule, in this order.
    #[track_caller]
    pub fn assert_skipped<const N: usize>(&self, callbacks: [&str; N]) {
        self.assert("were skipped", &self.skipped(), &callbacks);
    }

    /// Panics unless exactly these callbacks were cancelled or forgotten, in this order.
    #[track_caller]
    pub fn assert_cancelled<const N: usize>(&self, callbacks: [&str; N]) {
        self.assert("were cancelled", &self.cancelled(), &callbacks);
    }

    /// Panics unless exactly these callbacks were replaced, in this order.
    #[track_caller]
    pub fn assert_replaced<const N: usize>(&self, callbacks: [&str; N]) {
        self.assert("were replaced", &self.replaced(), &callbacks);
    }

    /// Panics if a callback failed.
    #[track_caller]
    pub fn assert_nothing_failed(&self) {
        self.assert("failed", &self.failed(), &[]);
    }

    /// Panics if a callback that should have run could not, or if one has not come to its end.
    #[track_caller]
    pub fn assert_nothing_lost(&self) {
        self.assert("were lost", &self.lost(), &[]);
        self.assert("are unfinished", &self.unfinished(), &[]);
    }

    #[track_caller]
    fn assert(&self, what: &str, actual: &[String], expected: &[&str]) {
        assert!(
            actual == expected,
            "callbacks that {what}\n     found: {}\n  expected: {}\n{self}",
            Listed(actual),
            Listed(expected),
        );
    }

    fn all(&self, is_meant: impl Fn(&Event) -> bool) -> Vec<String> {
        self.lock()
            .iter()
            .filter(|recorded| is_meant(&recorded.event))
            .map(|recorded| recorded.callback.clone())
            .collect()
    }

    fn record(&self, callback: &CallbackInfo<'_>, event: Event) {
        let name = match callback.name() {
            Some(name) => name.to_owned(),
            None => {
                let location = callback.location();
                format!("{}:{}", location.file(), location.line())
            }
        };
        self.lock().push(Recorded {
            callback: name,
            phase: callback.phase(),
            event,
        });
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Recorded>> {
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

/// The record as a failed assertion shows it.
impl fmt::Display for Recorder {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let events = self.events();
        if events.is_empty() {
            return formatter.write_str(
                "nothing was recorded: is the recorder an observer of the layer that the request \
                 went through?",
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
                "\nnot at their end yet: {unfinished:?}; without `inline()`, read the response to \
                 its end or drop it, then await `handle.wait_idle()`",
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
        self.record(callback, Event::Registered);
    }

    fn replaced(&self, callback: &CallbackInfo<'_>) {
        self.record(callback, Event::Replaced);
    }

    fn started(&self, callback: &CallbackInfo<'_>, _waited: Duration) {
        self.record(callback, Event::Started);
    }

    fn finished(&self, callback: &CallbackInfo<'_>, finished: &Finished<'_>) {
        let event = if finished.is_ok() {
            Event::Ran
        } else {
            Event::Failed(finished.outcome.to_string())
        };
        self.record(callback, event);
    }

    fn skipped(&self, callback: &CallbackInfo<'_>, completion: &Completion) {
        self.record(callback, Event::Skipped(*completion));
    }

    fn duplicate(&self, callback: &CallbackInfo<'_>) {
        self.record(callback, Event::Duplicate);
    }

    fn cancelled(&self, callback: &CallbackInfo<'_>) {
        self.record(callback, Event::Cancelled);
    }

    fn lost(&self, callback: &CallbackInfo<'_>, reason: LostReason) {
        self.record(callback, Event::Lost(reason));
    }
}

//! The record of a model, which checks that each callback ended once and ran at most once.

#![cfg_attr(
    axum_defer_shuttle,
    allow(dead_code, reason = "the models with many threads use a part")
)]

use std::{
    collections::BTreeMap,
    future::Future,
    panic::Location,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll, Waker},
};

use crate::{
    completion::{Completion, Delivery},
    defer::{collection::DeferredCallbackCollection, deferred_callback::DeferredCallback},
    drain::{Counts, Drain, DrainSource},
    observe::{
        callback_info::{CallbackInfo, Phase},
        observer::DeferObserver,
        outcome::{Finished, LostReason},
    },
    runner::{
        OnDrop,
        completion_guard::{CompletionGuard, run_before},
    },
    scope::{
        Scope,
        max_pending::{Permit, Waiting},
        options::Options,
    },
    sent::response::ResponseHandle,
    sync::loom_runtime,
};

/// The end of a callback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    Ran,
    Skipped,
    Cancelled,
    Replaced,
    Deduplicated,
    Lost(LostReason),
}

/// A record of the callbacks of a model, by the line that registers each.
#[derive(Clone)]
pub(crate) struct RunRecord {
    pub(super) options: Arc<Options>,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    registered: Mutex<Vec<u32>>,
    ran: Mutex<Vec<(u32, Completion)>>,
    ended: Mutex<Vec<(u32, Ended)>>,
    requests: AtomicUsize,
    inside: AtomicUsize,
    passed: loom::sync::atomic::AtomicUsize,
    faults: Mutex<Vec<String>>,
}

impl State {
    fn end(&self, callback: &CallbackInfo<'_>, ended: Ended) {
        self.ended
            .lock()
            .unwrap()
            .push((callback.location().line(), ended));
    }
}

struct RecordObserver(Arc<State>);

impl DeferObserver for RecordObserver {
    fn replaced(&self, callback: &CallbackInfo<'_>) {
        self.0.end(callback, Ended::Replaced);
    }

    fn deduplicated(&self, callback: &CallbackInfo<'_>) {
        self.0.end(callback, Ended::Deduplicated);
    }

    fn finished(&self, callback: &CallbackInfo<'_>, finished: &Finished<'_>) {
        // A failed assertion inside a callback is caught like any panic.
        if !finished.is_ok() && callback.phase() == Phase::After {
            let fault = format!("{callback}: {}", finished.outcome);
            self.0.faults.lock().unwrap().push(fault);
        }
        self.0.end(callback, Ended::Ran);
    }

    fn skipped(&self, callback: &CallbackInfo<'_>, _: &Completion) {
        self.0.end(callback, Ended::Skipped);
    }

    fn cancelled(&self, callback: &CallbackInfo<'_>) {
        self.0.end(callback, Ended::Cancelled);
    }

    fn lost(&self, callback: &CallbackInfo<'_>, reason: LostReason) {
        self.0.end(callback, Ended::Lost(reason));
    }
}

impl RunRecord {
    pub(crate) fn open() -> Self {
        Self::with(|_| {})
    }

    pub(crate) fn with(set: impl FnOnce(&mut Options)) -> Self {
        let state = Arc::new(State::default());
        let mut options = Options::default();
        options.observers.push(RecordObserver(state.clone()));
        set(&mut options);
        Self {
            options: Arc::new(options),
            state,
        }
    }

    /// Opens a request.
    pub(crate) fn request(
        &self,
        response: Option<ResponseHandle>,
    ) -> (CompletionGuard, DeferredCallbackCollection) {
        self.open_request(response, self.permit())
    }

    /// Opens a request with a permit under `max_pending`.
    #[cfg(axum_defer_shuttle)]
    pub(crate) fn request_with(
        &self,
        permit: Permit,
    ) -> (CompletionGuard, DeferredCallbackCollection) {
        self.open_request(None, Some(permit))
    }

    fn open_request(
        &self,
        response: Option<ResponseHandle>,
        permit: Option<Permit>,
    ) -> (CompletionGuard, DeferredCallbackCollection) {
        self.state.requests.fetch_add(1, SeqCst);
        let scope = Scope::open(self.options.clone(), response, || None, permit, None);
        let collection = DeferredCallbackCollection::new(scope.clone());
        (CompletionGuard::new(scope), collection)
    }

    /// Takes a permit under `max_pending`, if one is free.
    pub(crate) fn permit(&self) -> Option<Permit> {
        let pool = self.options.max_pending.as_ref()?;
        let cx = Context::from_waker(Waker::noop());
        match pool.poll_permit(&mut Waiting::default(), &cx) {
            Poll::Ready(permit) => Some(permit),
            Poll::Pending => None,
        }
    }

    /// Performs a step that loom orders with other calls. Like a reference count, it makes earlier
    /// writes visible to later callers.
    pub(crate) fn pass(&self) {
        self.state
            .passed
            .fetch_add(1, loom::sync::atomic::Ordering::AcqRel);
    }

    /// Registers a callback that records its run.
    #[track_caller]
    pub(crate) fn defer(&self, collection: &DeferredCallbackCollection) -> DeferredCallback {
        self.defer_with(collection, |_| async {})
    }

    /// Runs a closure on another thread.
    pub(crate) fn on_a_thread<T: Send + 'static>(
        &self,
        collection: &DeferredCallbackCollection,
        run: impl FnOnce(&Self, &DeferredCallbackCollection) -> T + Send + 'static,
    ) -> loom::thread::JoinHandle<T> {
        let (record, collection) = (self.clone(), collection.clone());
        loom::thread::spawn(move || run(&record, &collection))
    }

    /// Registers a callback that runs `code`.
    #[track_caller]
    pub(crate) fn defer_with<F>(
        &self,
        collection: &DeferredCallbackCollection,
        code: impl FnOnce(Completion) -> F + Send + 'static,
    ) -> DeferredCallback
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let line = Location::caller().line();
        self.state.registered.lock().unwrap().push(line);
        let record = self.clone();
        collection.defer(move |completion: Completion| async move {
            let state = &record.state;
            state.ran.lock().unwrap().push((line, completion.clone()));
            let inside = Inside::enter(state);
            record.pass();
            code(completion).await;
            // Callbacks of different requests may run at the same time.
            let sequential = !record.options.concurrent && state.requests.load(SeqCst) == 1;
            if sequential && inside.others > 0 {
                let fault = format!("line {line} ran concurrently with another callback");
                state.faults.lock().unwrap().push(fault);
            }
        })
    }

    /// Registers a callback before the response. Returns `false` if it is too late.
    ///
    /// The callback records its run. It fails if `fails` is `true`.
    #[track_caller]
    pub(crate) fn before(&self, collection: &DeferredCallbackCollection, fails: bool) -> bool {
        let line = Location::caller().line();
        let record = self.clone();
        let handle = collection.try_before_response(move |completion| async move {
            let state = &record.state;
            state.ran.lock().unwrap().push((line, completion));
            record.pass();
            if fails { Err("planned") } else { Ok(()) }
        });
        if handle.is_ok() {
            self.state.registered.lock().unwrap().push(line);
        }
        handle.is_ok()
    }

    /// Waits for the runners, then checks the invariants of an execution.
    pub(crate) fn close(self) -> Closed {
        loom_runtime::join_all();
        let Self { options, state } = self;
        assert_eq!(*state.faults.lock().unwrap(), Vec::<String>::new());

        let mut registered: BTreeMap<u32, usize> = BTreeMap::new();
        for line in state.registered.lock().unwrap().iter() {
            *registered.entry(*line).or_default() += 1;
        }
        let mut ends: BTreeMap<u32, Vec<Ended>> = BTreeMap::new();
        for (line, ended) in state.ended.lock().unwrap().iter() {
            ends.entry(*line).or_default().push(*ended);
        }
        let ended: BTreeMap<u32, usize> = ends
            .iter()
            .map(|(line, ends)| (*line, ends.len()))
            .collect();
        assert_eq!(ended, registered, "each callback ended once: {ends:?}");
        let ran = std::mem::take(&mut *state.ran.lock().unwrap());
        for (line, ends) in &ends {
            let runs = ran.iter().filter(|(ran, _)| ran == line).count();
            let has_run =
                |end: &&Ended| matches!(end, Ended::Ran | Ended::Lost(LostReason::Interrupted));
            let expected = ends.iter().filter(has_run).count();
            assert_eq!(runs, expected, "line {line} ended as {ends:?}");
        }

        assert_eq!(options.store.counts(), Counts::default());
        let drain = Drain::default();
        drain.add(&options.store);
        assert_eq!(drain.report().unfinished, []);
        assert_eq!(Arc::strong_count(&options), 1, "a scope was leaked");
        Closed {
            order: ran.iter().map(|(line, _)| *line).collect(),
            completions: ran.into_iter().map(|(_, completion)| completion).collect(),
            ends: ends.into_values().flatten().collect(),
        }
    }
}

/// A running callback. An interrupted one is dropped.
struct Inside<'a> {
    state: &'a State,
    others: usize,
}

impl<'a> Inside<'a> {
    fn enter(state: &'a State) -> Self {
        let others = state.inside.fetch_add(1, SeqCst);
        Self { state, others }
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.state.inside.fetch_sub(1, SeqCst);
    }
}

/// The results of a model, in the order of its lines.
pub(crate) struct Closed {
    pub(crate) ends: Vec<Ended>,
    /// The lines of the callbacks in the order in which they ran.
    pub(crate) order: Vec<u32>,
    pub(crate) completions: Vec<Completion>,
}

impl Closed {
    #[track_caller]
    pub(super) fn all_ran(&self, count: usize) {
        assert_eq!(self.ends, vec![Ended::Ran; count]);
        assert!(
            self.completions.windows(2).all(|two| two[0] == two[1]),
            "all callbacks have the same completion"
        );
    }
}

/// Releases the head of a successful response, and runs the callbacks before it here.
pub(crate) fn prepare(mut guard: CompletionGuard) -> CompletionGuard {
    guard.verdict.success = true;
    guard.verdict.delivery = Delivery::Aborted;
    if guard.release_head() {
        let run = run_before(guard, OnDrop::Lose);
        (guard, _) = loom::future::block_on(run);
    }
    guard
}

/// Completes the response successfully.
pub(crate) fn succeed(mut guard: CompletionGuard) {
    guard.verdict.success = true;
    guard.verdict.delivery = Delivery::Complete;
    drop(guard);
}

//! The scope's state machine, in every interleaving of two or three threads.
//!
//! Run it with the command in `CONTRIBUTING.md`. loom replaces the lock and the atomics of
//! [`sync`](crate::sync), runs each model once per order in which its threads can take them, and
//! fails on a deadlock. At the end of every execution the [`Ledger`] is closed: each callback has
//! ended exactly once, none runs beside another of its scope, nothing is pending, running or
//! listed, and every scope is gone.
//!
//! What loom can't see are the reference counts of `std::sync::Arc`, the counters of the tracker,
//! Tokio's clock and its handle on a runtime. No decision hangs on the last three. Where one does
//! hang on a reference count, [`Ledger::pass`] stands beside it: a step that loom orders.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    future::{Future, poll_fn},
    io::Write,
    panic::Location,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll, Waker},
};

use loom::{model::Builder, thread::JoinHandle};
use tokio::sync::oneshot;

use crate::{
    collection::DeferredCallbackCollection,
    completer::Completer,
    completion::{Completion, Delivery},
    drain::{DeferHandle, Trackers},
    handle::DeferredCallback,
    observe::{CallbackInfo, DeferObserver, Finished, LostReason},
    options::Options,
    scope::Scope,
    sent::transmission::Transmission,
};

/// Runs `model` in all of its interleavings, and says how many that were.
pub(crate) fn explore(name: &str, model: impl Fn() + Send + Sync + 'static) {
    explore_within(None, name, model);
}

/// Like [`explore`], with at most so many preemptions per execution where all would take too long.
pub(crate) fn explore_within(
    preemptions: impl Into<Option<usize>>,
    name: &str,
    model: impl Fn() + Send + Sync + 'static,
) {
    let mut builder = Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(preemptions.into());
    let bound = match builder.preemption_bound {
        Some(bound) => format!(" of at most {bound} preemptions"),
        None => String::new(),
    };
    let executions = Arc::new(AtomicUsize::new(0));
    let counted = executions.clone();
    builder.check(move || {
        counted.fetch_add(1, SeqCst);
        // What the execution before this one left behind when it failed would only confuse.
        RUNNERS.take();
        RUNTIME.set(Runtime::Runs);
        model();
    });
    // Not `println`, which the test harness keeps to itself.
    let count = executions.load(SeqCst);
    let _ = writeln!(
        std::io::stdout(),
        "model {name}: {count} interleavings{bound}"
    );
}

/// What happens to a runner that is spawned.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Runtime {
    Runs,
    IsShuttingDown,
}

thread_local! {
    // All threads of a model are coroutines of one thread, so this is one per execution.
    static RUNNERS: RefCell<Vec<JoinHandle<()>>> = const { RefCell::new(Vec::new()) };
    static RUNTIME: Cell<Runtime> = const { Cell::new(Runtime::Runs) };
}

/// Takes the place of `Handle::spawn`.
pub(crate) fn spawn(runner: impl Future<Output = ()> + Send + 'static) {
    match RUNTIME.get() {
        Runtime::Runs => {
            let thread = loom::thread::spawn(move || loom::future::block_on(runner));
            RUNNERS.with_borrow_mut(|runners| runners.push(thread));
        }
        Runtime::IsShuttingDown => drop(runner),
    }
}

/// How a callback ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    Ran,
    Skipped,
    Cancelled,
    Replaced,
    Lost(LostReason),
}

/// Knows of every callback of a model, by the line that registers it.
#[derive(Clone)]
pub(crate) struct Ledger {
    options: Arc<Options>,
    book: Arc<Book>,
}

#[derive(Default)]
struct Book {
    registered: Mutex<Vec<u32>>,
    ran: Mutex<Vec<(u32, Completion)>>,
    ended: Mutex<Vec<(u32, Ended)>>,
    requests: AtomicUsize,
    inside: AtomicUsize,
    passed: loom::sync::atomic::AtomicUsize,
    faults: Mutex<Vec<String>>,
}

impl Book {
    fn end(&self, callback: &CallbackInfo<'_>, ended: Ended) {
        self.ended
            .lock()
            .unwrap()
            .push((callback.location().line(), ended));
    }
}

struct Clerk(Arc<Book>);

impl DeferObserver for Clerk {
    fn replaced(&self, callback: &CallbackInfo<'_>) {
        self.0.end(callback, Ended::Replaced);
    }

    fn finished(&self, callback: &CallbackInfo<'_>, finished: &Finished<'_>) {
        // Also where a fault inside of a callback comes out, which was caught as any panic is.
        if !finished.is_ok() {
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

impl Ledger {
    pub(crate) fn open() -> Self {
        Self::with(|_| {})
    }

    pub(crate) fn with(set: impl FnOnce(&mut Options)) -> Self {
        let book = Arc::new(Book::default());
        let mut options = Options::default();
        options.observers.push(Clerk(book.clone()));
        set(&mut options);
        Self {
            options: Arc::new(options),
            book,
        }
    }

    /// A request that is on its way.
    pub(crate) fn request(
        &self,
        transmission: Option<Arc<Transmission>>,
    ) -> (Completer, DeferredCallbackCollection) {
        self.book.requests.fetch_add(1, SeqCst);
        let scope = Scope::open(self.options.clone(), transmission);
        let collection = DeferredCallbackCollection::new(scope.clone());
        (Completer::new(scope), collection)
    }

    /// A step of the calling thread that loom orders with all the others of this kind.
    pub(crate) fn pass(&self) {
        self.book
            .passed
            .fetch_add(1, loom::sync::atomic::Ordering::Relaxed);
    }

    /// Registers a callback that only notes that it ran.
    #[track_caller]
    pub(crate) fn defer(&self, collection: &DeferredCallbackCollection) -> DeferredCallback {
        self.defer_with(collection, |_| async {})
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
        self.book.registered.lock().unwrap().push(line);
        let ledger = self.clone();
        let one_by_one = !self.options.concurrent && self.book.requests.load(SeqCst) == 1;
        collection.defer(move |completion| async move {
            let book = &ledger.book;
            book.ran.lock().unwrap().push((line, completion));
            let inside = Inside::enter(book);
            ledger.pass();
            code(completion).await;
            if one_by_one && inside.others > 0 {
                let fault = format!("line {line} ran beside another callback");
                book.faults.lock().unwrap().push(fault);
            }
        })
    }

    /// Waits for the runners, then checks everything that has to hold of every execution.
    pub(crate) fn close(self) -> Closed {
        loop {
            let Some(runner) = RUNNERS.with_borrow_mut(Vec::pop) else {
                break;
            };
            runner.join().unwrap();
        }
        let Self { options, book } = self;
        assert_eq!(*book.faults.lock().unwrap(), Vec::<String>::new());

        let mut ends: BTreeMap<u32, Vec<Ended>> = BTreeMap::new();
        for line in book.registered.lock().unwrap().iter() {
            assert!(ends.insert(*line, Vec::new()).is_none(), "one per line");
        }
        for (line, ended) in book.ended.lock().unwrap().iter() {
            ends.entry(*line).or_default().push(*ended);
        }
        let ran = std::mem::take(&mut *book.ran.lock().unwrap());
        for (line, ends) in &ends {
            assert_eq!(ends.len(), 1, "line {line} ended once: {ends:?}");
            let runs = ran.iter().filter(|(ran, _)| ran == line).count();
            match ends[0] {
                Ended::Ran | Ended::Lost(LostReason::Interrupted) => assert_eq!(runs, 1),
                _ => assert_eq!(runs, 0, "line {line} ran and was {:?}", ends[0]),
            }
        }

        let handle = DeferHandle::new(options.tracker.clone());
        assert_eq!((handle.pending(), handle.running()), (0, 0));
        let trackers = Trackers::default();
        trackers.add(&options.tracker);
        assert_eq!(trackers.report().unfinished, []);
        assert_eq!(Arc::strong_count(&options), 1, "a scope was leaked");
        Closed {
            order: ran.iter().map(|(line, _)| *line).collect(),
            completions: ran.into_iter().map(|(_, completion)| completion).collect(),
            ends: ends.into_values().map(|ends| ends[0]).collect(),
        }
    }
}

/// A callback that is running; one that is cut off leaves, too.
struct Inside<'a> {
    book: &'a Book,
    others: usize,
}

impl<'a> Inside<'a> {
    fn enter(book: &'a Book) -> Self {
        let others = book.inside.fetch_add(1, SeqCst);
        Self { book, others }
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.book.inside.fetch_sub(1, SeqCst);
    }
}

/// What a model left behind, in the order of its lines.
pub(crate) struct Closed {
    pub(crate) ends: Vec<Ended>,
    /// The lines of the callbacks in the order in which they ran.
    pub(crate) order: Vec<u32>,
    pub(crate) completions: Vec<Completion>,
}

impl Closed {
    #[track_caller]
    fn all_ran(&self, count: usize) {
        assert_eq!(self.ends, vec![Ended::Ran; count]);
        assert!(
            self.completions.windows(2).all(|two| two[0] == two[1]),
            "under one completion"
        );
    }
}

/// The response went out whole.
pub(crate) fn succeed(mut completer: Completer) {
    completer.verdict.success = true;
    completer.verdict.delivery = Delivery::Sent;
    drop(completer);
}

#[test]
fn a_push_while_the_body_ends() {
    explore_within(4, "a push while the body ends", || {
        let ledger = Ledger::open();
        let (completer, collection) = ledger.request(None);
        drop(ledger.defer(&collection));
        let pusher = {
            let (ledger, collection) = (ledger.clone(), collection.clone());
            loom::thread::spawn(move || {
                drop(ledger.defer(&collection));
                drop(ledger.defer(&collection));
            })
        };
        succeed(completer);
        pusher.join().unwrap();
        drop(collection);
        let closed = ledger.close();
        closed.all_ran(3);
        assert!(closed.order.is_sorted(), "in the order of registration");
    });
}

#[test]
fn two_threads_push_while_the_body_ends() {
    explore_within(3, "two threads push while the body ends", || {
        let ledger = Ledger::open();
        let (completer, collection) = ledger.request(None);
        let one = {
            let (ledger, collection) = (ledger.clone(), collection.clone());
            loom::thread::spawn(move || drop(ledger.defer(&collection)))
        };
        let other = {
            let (ledger, collection) = (ledger.clone(), collection.clone());
            loom::thread::spawn(move || drop(ledger.defer(&collection)))
        };
        succeed(completer);
        one.join().unwrap();
        other.join().unwrap();
        drop(collection);
        ledger.close().all_ran(2);
    });
}

/// `Completer::drop` leaves a scope undecided when nobody is left who could push.
#[test]
fn the_last_push_while_the_body_is_dropped() {
    explore("the last push while the body is dropped", || {
        let ledger = Ledger::open();
        let (completer, collection) = ledger.request(None);
        let pusher = {
            let ledger = ledger.clone();
            loom::thread::spawn(move || {
                let collection = collection;
                drop(ledger.defer(&collection));
                ledger.pass();
                drop(collection);
            })
        };
        ledger.pass();
        succeed(completer);
        pusher.join().unwrap();
        ledger.close().all_ran(1);
    });
}

#[test]
fn an_unused_collection_goes_while_the_body_is_dropped() {
    explore(
        "an unused collection goes while the body is dropped",
        || {
            let ledger = Ledger::open();
            let (completer, collection) = ledger.request(None);
            let other = {
                let ledger = ledger.clone();
                loom::thread::spawn(move || {
                    ledger.pass();
                    drop(collection);
                })
            };
            ledger.pass();
            succeed(completer);
            other.join().unwrap();
            ledger.close().all_ran(0);
        },
    );
}

#[test]
fn a_cancellation_while_the_runner_starts() {
    explore("a cancellation while the runner starts", || {
        let ledger = Ledger::open();
        let (completer, collection) = ledger.request(None);
        let handle = ledger.defer(&collection);
        drop(ledger.defer(&collection));
        let canceller = loom::thread::spawn(move || handle.cancel());
        succeed(completer);
        let cancelled = canceller.join().unwrap();
        drop(collection);
        let expected = if cancelled {
            Ended::Cancelled
        } else {
            Ended::Ran
        };
        assert_eq!(ledger.close().ends, [expected, Ended::Ran]);
    });
}

#[test]
fn two_threads_forget_one_name_while_the_body_ends() {
    explore("two threads forget one name while the body ends", || {
        let ledger = Ledger::open();
        let (completer, collection) = ledger.request(None);
        drop(ledger.defer(&collection).name("a"));
        let [one, other] = [collection.clone(), collection.clone()]
            .map(|collection| loom::thread::spawn(move || collection.forget("a")));
        succeed(completer);
        let forgotten = one.join().unwrap() + other.join().unwrap();
        assert!(!collection.contains("a") && collection.is_empty() || forgotten == 0);
        drop(collection);
        let expected = match forgotten {
            0 => Ended::Ran,
            _ => Ended::Cancelled,
        };
        assert!(forgotten < 2);
        assert_eq!(ledger.close().ends, [expected]);
    });
}

#[test]
fn a_rename_and_a_cancellation_while_the_body_ends() {
    explore_within(3, "a rename and a cancellation while the body ends", || {
        let ledger = Ledger::open();
        let (completer, collection) = ledger.request(None);
        let first = ledger.defer(&collection).name("a");
        let second = ledger.defer(&collection);
        let renamer = loom::thread::spawn(move || drop(second.name("a")));
        let canceller = loom::thread::spawn(move || first.cancel());
        succeed(completer);
        renamer.join().unwrap();
        let cancelled = canceller.join().unwrap();
        drop(collection);
        let closed = ledger.close();
        assert_eq!(closed.ends[1], Ended::Ran);
        assert_eq!(closed.ends[0] == Ended::Cancelled, cancelled);
    });
}

/// The earlier registration is renamed onto the name of the later one, and so is out itself.
#[test]
fn a_rename_onto_a_later_callback_while_it_is_forgotten() {
    explore_within(
        3,
        "a rename onto a later callback while it is forgotten",
        || {
            let ledger = Ledger::open();
            let (completer, collection) = ledger.request(None);
            let first = ledger.defer(&collection);
            drop(ledger.defer(&collection).name("a"));
            let renamer = loom::thread::spawn(move || drop(first.name("a")));
            let forgetter = {
                let collection = collection.clone();
                loom::thread::spawn(move || collection.forget("a"))
            };
            succeed(completer);
            renamer.join().unwrap();
            let forgotten = forgetter.join().unwrap();
            drop(collection);
            let closed = ledger.close();
            let cancelled = closed
                .ends
                .iter()
                .filter(|ended| **ended == Ended::Cancelled)
                .count();
            assert_eq!(cancelled, forgotten);
            assert_ne!(closed.ends, [Ended::Cancelled, Ended::Replaced]);
        },
    );
}

#[test]
fn a_handle_is_used_while_a_failure_is_decided() {
    explore("a handle is used while a failure is decided", || {
        let ledger = Ledger::open();
        let (completer, collection) = ledger.request(None);
        let handle = ledger.defer(&collection);
        let user = loom::thread::spawn(move || {
            drop(handle.timeout(std::time::Duration::MAX).always());
        });
        drop(completer);
        user.join().unwrap();
        drop(collection);
        let closed = ledger.close();
        assert!(matches!(closed.ends[..], [Ended::Ran | Ended::Skipped]));
    });
}

#[test]
fn a_late_callback_never_starts_without_its_rule() {
    explore("a late callback never starts without its rule", || {
        let ledger = Ledger::open();
        let (completer, collection) = ledger.request(None);
        drop(ledger.defer(&collection));
        let pusher = {
            let (ledger, collection) = (ledger.clone(), collection.clone());
            loom::thread::spawn(move || drop(ledger.defer(&collection).always()))
        };
        drop(collection);
        drop(completer);
        pusher.join().unwrap();
        assert_eq!(ledger.close().ends, [Ended::Skipped, Ended::Ran]);
    });
}

#[test]
fn a_nested_push_and_one_from_outside() {
    explore("a nested push and one from outside", || {
        let ledger = Ledger::open();
        let (completer, collection) = ledger.request(None);
        let nested = (ledger.clone(), collection.clone());
        drop(ledger.defer_with(&collection, move |_| async move {
            let (ledger, collection) = nested;
            drop(ledger.defer(&collection));
        }));
        let pusher = {
            let (ledger, collection) = (ledger.clone(), collection.clone());
            loom::thread::spawn(move || drop(ledger.defer(&collection)))
        };
        succeed(completer);
        pusher.join().unwrap();
        drop(collection);
        ledger.close().all_ran(3);
    });
}

/// The first callback waits for the second one: a lost wake-up of the runner is a deadlock.
#[test]
fn a_push_wakes_a_concurrent_runner() {
    explore_within(3, "a push wakes a concurrent runner", || {
        let ledger = Ledger::with(|options| options.concurrent = true);
        let (completer, collection) = ledger.request(None);
        let (sender, receiver) = oneshot::channel();
        drop(ledger.defer_with(&collection, |_| async {
            receiver.await.unwrap();
        }));
        let pusher = {
            let (ledger, collection) = (ledger.clone(), collection.clone());
            loom::thread::spawn(move || {
                drop(ledger.defer(&collection));
                // The last one, so that nothing after it makes good for a lost wake-up.
                drop(ledger.defer_with(&collection, |_| async {
                    sender.send(()).unwrap();
                }));
            })
        };
        succeed(completer);
        pusher.join().unwrap();
        drop(collection);
        ledger.close().all_ran(3);
    });
}

#[test]
fn a_runtime_that_shuts_down_loses_each_callback_once() {
    explore_within(
        3,
        "a runtime that shuts down loses each callback once",
        || {
            RUNTIME.set(Runtime::IsShuttingDown);
            let ledger = Ledger::open();
            let (completer, collection) = ledger.request(None);
            let handle = ledger.defer(&collection);
            let pusher = {
                let (ledger, collection) = (ledger.clone(), collection.clone());
                loom::thread::spawn(move || drop(ledger.defer(&collection)))
            };
            let canceller = loom::thread::spawn(move || handle.cancel());
            succeed(completer);
            pusher.join().unwrap();
            let first = if canceller.join().unwrap() {
                Ended::Cancelled
            } else {
                Ended::Lost(LostReason::NoRuntime)
            };
            drop(collection);
            let lost = Ended::Lost(LostReason::NoRuntime);
            assert_eq!(ledger.close().ends, [first, lost]);
        },
    );
}

/// Like a `scope(..)` future that its owner drops while a callback is running.
#[test]
fn a_runner_that_is_dropped_half_way_moves_to_a_task() {
    explore("a runner that is dropped half-way moves to a task", || {
        let ledger = Ledger::open();
        let (mut completer, collection) = ledger.request(None);
        drop(ledger.defer_with(&collection, |_| poll_fn(|_| Poll::Pending)));
        drop(ledger.defer(&collection));
        let pusher = {
            let (ledger, collection) = (ledger.clone(), collection.clone());
            loom::thread::spawn(move || drop(ledger.defer(&collection)))
        };
        completer.verdict.success = true;
        let mut here = Box::pin(completer.complete_here());
        let polled = here.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert!(polled.is_pending());
        drop(here);
        pusher.join().unwrap();
        drop(collection);
        let interrupted = Ended::Lost(LostReason::Interrupted);
        assert_eq!(ledger.close().ends, [interrupted, Ended::Ran, Ended::Ran]);
    });
}

/// Asking what is unfinished, as a drain does at its deadline, holds nothing up.
#[test]
fn a_report_while_callbacks_run() {
    explore_within(3, "a report while callbacks run", || {
        let ledger = Ledger::open();
        let (completer, collection) = ledger.request(None);
        drop(ledger.defer(&collection));
        let reporter = {
            let tracker = ledger.options.tracker.clone();
            loom::thread::spawn(move || {
                let trackers = Trackers::default();
                trackers.add(&tracker);
                trackers.report().unfinished.len()
            })
        };
        let pusher = {
            let (ledger, collection) = (ledger.clone(), collection.clone());
            loom::thread::spawn(move || drop(ledger.defer(&collection)))
        };
        drop(collection);
        succeed(completer);
        assert!(reporter.join().unwrap() <= 2);
        pusher.join().unwrap();
        ledger.close().all_ran(2);
    });
}

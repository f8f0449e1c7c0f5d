//! `max_concurrency` and `max_pending`: how much runs at once, how much may wait, who is let in.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    error_handling::HandleErrorLayer,
    http::{Request, Response, StatusCode},
    routing::get,
};
use axum_defer::{CallbackInfo, DeferHandle, DeferLayer, DeferObserver, Finished, defer};
use futures_util::poll;
use http_body_util::BodyExt;
use tokio::{
    sync::{Notify, Semaphore, mpsc},
    task::JoinHandle,
};
use tower::{BoxError, Service, ServiceBuilder, ServiceExt, service_fn};

use crate::support::in_time;

fn request() -> Request<Body> {
    Request::new(Body::empty())
}

/// Sends one request and takes the response to its end, so that its callbacks are due.
async fn send<S, B>(service: S) -> StatusCode
where
    S: Service<Request<Body>, Response = Response<B>, Error: std::fmt::Debug>,
    B: http_body_util::BodyExt<Error: std::fmt::Debug>,
{
    let response = service.oneshot(request()).await.unwrap();
    let status = response.status();
    response.into_body().collect().await.unwrap();
    status
}

/// Lets every task that can go on do so, on a runtime of one thread.
async fn let_others_run() {
    for _ in 0..1_000 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn at_most_n_scopes_run_at_once_across_all_clones_and_the_rest_waits_in_order() {
    let layer = DeferLayer::new().max_concurrency(3);
    let handle = layer.handle();
    let (starts, mut started) = mpsc::unbounded_channel();
    let gate = Arc::new(Semaphore::new(0));
    let number = Arc::new(AtomicUsize::new(0));
    let handler = {
        let gate = gate.clone();
        move |_: Request<Body>| {
            let (number, starts, gate) =
                (number.fetch_add(1, SeqCst), starts.clone(), gate.clone());
            async move {
                defer(async move {
                    starts.send(number).unwrap();
                    gate.acquire().await.unwrap().forget();
                });
                // Of the same scope, so it is under the same permit.
                defer(async {});
                Ok::<_, Infallible>(Response::new(Body::from("hello")))
            }
        }
    };
    let one = layer.layer(service_fn(handler.clone()));
    let other = layer.clone().layer(service_fn(handler));
    for _ in 0..10 {
        assert_eq!(send(one.clone()).await, 200);
        assert_eq!(send(other.clone()).await, 200);
    }

    for expected in 0..20 {
        let_others_run().await;
        assert_eq!(handle.running(), 3.min(20 - expected));
        assert_eq!(started.recv().await, Some(expected));
        gate.add_permits(1);
    }
    handle.wait_idle().await;
    assert!(started.try_recv().is_err());
}

#[tokio::test]
async fn a_scope_that_waits_for_its_turn_is_pending_and_a_panic_gives_the_turn_back() {
    let layer = DeferLayer::new().max_concurrency(1);
    let handle = layer.handle();
    let gate = Arc::new(Semaphore::new(0));
    let first = layer.layer(service_fn({
        let gate = gate.clone();
        move |_: Request<Body>| {
            let gate = gate.clone();
            async move {
                defer(async move {
                    gate.acquire().await.unwrap().forget();
                    panic!("of the first scope");
                });
                Ok::<_, Infallible>(Response::new(Body::from("hello")))
            }
        }
    }));
    for _ in 0..5 {
        send(first.clone()).await;
    }
    let_others_run().await;
    assert_eq!((handle.running(), handle.pending()), (1, 4));
    gate.add_permits(5);
    in_time(handle.wait_idle()).await;
}

#[tokio::test]
async fn a_late_callback_waits_for_a_turn_too() {
    let layer = DeferLayer::new().max_concurrency(1);
    let handle = layer.handle();
    let late = layer
        .scope(async {
            defer(async {});
            Ok::<_, Infallible>(axum_defer::DeferredCallbackCollection::current().unwrap())
        })
        .await
        .unwrap();
    let gate = Arc::new(Semaphore::new(0));
    let occupied = tokio::spawn(layer.scope({
        let gate = gate.clone();
        async move {
            defer(async move { gate.acquire().await.unwrap().forget() });
        }
    }));
    let_others_run().await;
    late.defer(async {});
    let_others_run().await;
    assert_eq!((handle.running(), handle.pending()), (1, 1));
    gate.add_permits(1);
    occupied.await.unwrap();
    handle.wait_idle().await;
}

/// A service whose every request defers so many callbacks that wait for the gate.
fn gated(
    layer: &DeferLayer,
    gate: &Arc<Semaphore>,
    callbacks: usize,
) -> impl Service<
    Request<Body>,
    Response = Response<
        impl http_body_util::BodyExt<Data = bytes::Bytes, Error = axum::Error> + use<>,
    >,
    Error = Infallible,
    Future: Send,
> + Clone
+ use<> {
    let gate = gate.clone();
    layer.layer(service_fn(move |_: Request<Body>| {
        let gate = gate.clone();
        async move {
            for _ in 0..callbacks {
                let gate = gate.clone();
                defer(async move { gate.acquire().await.unwrap().forget() });
            }
            Ok::<_, Infallible>(Response::new(Body::from("hello")))
        }
    }))
}

#[tokio::test]
async fn the_service_is_not_ready_while_n_callbacks_are_registered_or_running() {
    let layer = DeferLayer::new().max_pending(2);
    let handle = layer.handle();
    let gate = Arc::new(Semaphore::new(0));
    let service = gated(&layer, &gate, 1);

    // Registered only: its response has not ended.
    let open = service.clone().oneshot(request()).await.unwrap();
    send(service.clone()).await;
    let_others_run().await;
    assert_eq!((handle.pending(), handle.running()), (1, 1));

    let mut next = service.clone();
    let mut ready = Box::pin(next.ready());
    assert!(poll!(&mut ready).is_pending());
    gate.add_permits(1);
    let next = in_time(ready).await.unwrap();
    assert_eq!((handle.pending(), handle.running()), (1, 0));

    let response = next.call(request()).await.unwrap();
    assert!(poll!(service.clone().ready()).is_pending());
    let mut to_completion = layer.clone().run_to_completion().layer(service);
    assert!(poll!(to_completion.ready()).is_pending());
    gate.add_permits(2);
    drop((response, open));
    in_time(handle.wait_idle()).await;
    assert!(poll!(to_completion.ready()).is_ready());
}

#[tokio::test]
async fn what_was_skipped_or_cancelled_makes_room_like_what_ran() {
    let layer = DeferLayer::new().max_pending(1);
    let collection = layer
        .scope(async {
            Ok::<_, Infallible>(axum_defer::DeferredCallbackCollection::current().unwrap())
        })
        .await
        .unwrap();
    let mut service = layer.layer(service_fn(|_: Request<Body>| async {
        defer(async { unreachable!("the response is no success") });
        let mut response = Response::new(Body::from("hello"));
        *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        Ok::<_, Infallible>(response)
    }));
    for _ in 0..3 {
        // Nobody but the runner could make room again.
        let response = in_time(service.ready())
            .await
            .unwrap()
            .call(request())
            .await
            .unwrap();
        assert!(poll!(service.ready()).is_pending());
        response.into_body().collect().await.unwrap();
    }
    layer.handle().wait_idle().await;
    let callback = collection.defer(async {});
    assert!(poll!(service.ready()).is_pending());
    assert!(callback.cancel());
    assert!(poll!(service.ready()).is_ready());
}

#[tokio::test]
async fn load_shed_outside_answers_503_while_there_is_no_room() {
    let gate = Arc::new(Semaphore::new(0));
    let layer = DeferLayer::new().max_pending(3);
    let handle = layer.handle();
    let app: Router = Router::new()
        .route(
            "/",
            get({
                let gate = gate.clone();
                || async move {
                    defer(async move { gate.acquire().await.unwrap().forget() });
                    "hello"
                }
            }),
        )
        .layer(
            ServiceBuilder::new()
                .layer(HandleErrorLayer::new(|error: BoxError| async move {
                    assert!(error.is::<tower::load_shed::error::Overloaded>());
                    StatusCode::SERVICE_UNAVAILABLE
                }))
                .load_shed()
                .layer(layer),
        );
    for _ in 0..3 {
        assert_eq!(send(app.clone()).await, 200);
    }
    for _ in 0..10 {
        assert_eq!(send(app.clone()).await, 503);
    }
    gate.add_permits(3);
    handle.wait_idle().await;
    assert_eq!(send(app.clone()).await, 200);
    gate.add_permits(1);
    handle.wait_idle().await;
}

#[tokio::test]
async fn a_waiting_request_that_is_cancelled_does_not_swallow_the_wake_up_of_another() {
    let layer = DeferLayer::new().max_pending(1);
    let handle = layer.handle();
    let gate = Arc::new(Semaphore::new(0));
    let service = gated(&layer, &gate, 1);
    send(service.clone()).await;

    let mut first = Box::pin(service.clone().oneshot(request()));
    let mut second = Box::pin(service.clone().oneshot(request()));
    assert!(poll!(&mut first).is_pending());
    assert!(poll!(&mut second).is_pending());
    gate.add_permits(2);
    handle.wait_idle().await;
    // The wake-up was for the first in the queue, and it did not live to use it.
    drop(first);
    let response = in_time(second).await.unwrap();
    response.into_body().collect().await.unwrap();
    handle.wait_idle().await;
}

#[tokio::test]
async fn a_waiting_service_that_nobody_polls_any_more_does_not_hold_up_the_others_for_ever() {
    let layer = DeferLayer::new().max_pending(1);
    let handle = layer.handle();
    let gate = Arc::new(Semaphore::new(0));
    let service = gated(&layer, &gate, 1);
    send(service.clone()).await;

    let mut abandoned = service.clone();
    assert!(poll!(abandoned.ready()).is_pending());
    let waiting = tokio::spawn({
        let service = service.clone();
        async move { service.oneshot(request()).await.unwrap().status() }
    });
    let_others_run().await;
    gate.add_permits(2);
    let status = in_time(waiting).await.unwrap();
    assert_eq!(status, 200);
    handle.wait_idle().await;
    drop(abandoned);
}

#[tokio::test]
async fn one_place_that_gets_free_lets_in_all_who_defer_nothing() {
    let layer = DeferLayer::new().max_pending(1);
    let gate = Arc::new(Semaphore::new(0));
    let occupied = gated(&layer, &gate, 1);
    let defers_nothing = gated(&layer, &gate, 0);
    send(occupied).await;

    let waiting: Vec<_> = (0..100)
        .map(|_| tokio::spawn(send(defers_nothing.clone())))
        .collect();
    let_others_run().await;
    gate.add_permits(1);
    for request in waiting {
        let status = in_time(request).await.unwrap();
        assert_eq!(status, 200);
    }
}

const IN_FLIGHT: usize = 300;
const PER_REQUEST: usize = 2;
const BOUND: usize = 1_000;
/// More than this is never there at once: the requests that were let in under the bound.
const MOST: usize = BOUND + IN_FLIGHT * PER_REQUEST;

/// What every callback captures, so that the living ones can be counted.
struct Payload {
    living: Arc<AtomicUsize>,
    _memory: [u8; 512],
}

impl Payload {
    fn new(living: &Arc<AtomicUsize>) -> Self {
        living.fetch_add(1, SeqCst);
        Self {
            living: living.clone(),
            _memory: [7; 512],
        }
    }
}

impl Drop for Payload {
    fn drop(&mut self) {
        self.living.fetch_sub(1, SeqCst);
    }
}

/// Looks at the counts whenever they grow.
struct Highest {
    handle: DeferHandle,
    callbacks: Arc<AtomicUsize>,
    running: Arc<AtomicUsize>,
    bound_reached: Arc<Notify>,
}

impl DeferObserver for Highest {
    fn registered(&self, _: &CallbackInfo<'_>) {
        let callbacks = self.handle.pending() + self.handle.running();
        self.callbacks.fetch_max(callbacks, SeqCst);
        if callbacks >= BOUND {
            self.bound_reached.notify_one();
        }
    }

    fn started(&self, _: &CallbackInfo<'_>, _: Duration) {
        self.running.fetch_max(self.handle.running(), SeqCst);
    }
}

/// Many requests at once, whose callbacks wait until they are fed.
struct Storm {
    handle: DeferHandle,
    gate: Arc<Semaphore>,
    done: Arc<Semaphore>,
    clients: Vec<JoinHandle<()>>,
    callbacks: Arc<AtomicUsize>,
    running: Arc<AtomicUsize>,
    living: Arc<AtomicUsize>,
    most_living: Arc<AtomicUsize>,
    ran: Arc<Vec<AtomicUsize>>,
}

impl Storm {
    /// Returns when the requests have piled up to the bound.
    async fn start(requests: usize) -> Self {
        let layer = DeferLayer::new().max_pending(BOUND).max_concurrency(16);
        let handle = layer.handle();
        let highest = Highest {
            handle: handle.clone(),
            callbacks: Arc::default(),
            running: Arc::default(),
            bound_reached: Arc::default(),
        };
        let (callbacks, running) = (highest.callbacks.clone(), highest.running.clone());
        let bound_reached = highest.bound_reached.clone();
        let layer = layer.observer(highest);

        let living = Arc::new(AtomicUsize::new(0));
        let most_living = Arc::new(AtomicUsize::new(0));
        let ran: Arc<Vec<AtomicUsize>> = Arc::new((0..requests).map(|_| 0.into()).collect());
        let gate = Arc::new(Semaphore::new(0));
        let done = Arc::new(Semaphore::new(0));
        let number = Arc::new(AtomicUsize::new(0));
        let service = layer.layer(service_fn({
            let (living, most_living, ran) = (living.clone(), most_living.clone(), ran.clone());
            let (gate, done) = (gate.clone(), done.clone());
            move |_: Request<Body>| {
                let number = number.fetch_add(1, SeqCst);
                for _ in 0..PER_REQUEST {
                    let payload = Payload::new(&living);
                    most_living.fetch_max(living.load(SeqCst), SeqCst);
                    let (ran, gate, done) = (ran.clone(), gate.clone(), done.clone());
                    defer(async move {
                        gate.acquire().await.unwrap().forget();
                        ran[number].fetch_add(1, SeqCst);
                        drop(payload);
                        done.add_permits(1);
                    });
                }
                async { Ok::<_, Infallible>(Response::new(Body::from("hello"))) }
            }
        }));

        let left = Arc::new(AtomicUsize::new(requests));
        let clients = (0..IN_FLIGHT)
            .map(|_| {
                let (service, left) = (service.clone(), left.clone());
                tokio::spawn(async move {
                    while left
                        .fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1))
                        .is_ok()
                    {
                        assert_eq!(send(service.clone()).await, 200);
                    }
                })
            })
            .collect();

        // Nothing ends before the first permit, so the requests pile up to the bound, and stop.
        in_time(bound_reached.notified()).await;
        Self {
            handle,
            gate,
            done,
            clients,
            callbacks,
            running,
            living,
            most_living,
            ran,
        }
    }

    /// Lets the callbacks of so many requests end, some at a time.
    async fn feed(&self, requests: usize) {
        let batch = 200;
        assert_eq!(requests * PER_REQUEST % batch, 0);
        for _ in (0..requests * PER_REQUEST).step_by(batch) {
            self.gate.add_permits(batch);
            let done = self.done.acquire_many(batch as u32);
            in_time(done).await.unwrap().forget();
        }
    }

    /// Waits for the end of what was fed, and checks what the storm has seen.
    async fn end(self) {
        for client in self.clients {
            in_time(client).await.unwrap();
        }
        in_time(self.handle.wait_idle()).await;
        let callbacks = self.callbacks.load(SeqCst);
        assert!((BOUND..=MOST).contains(&callbacks), "{callbacks} at once");
        let most_living = self.most_living.load(SeqCst);
        assert!(most_living <= MOST + PER_REQUEST, "{most_living} in memory");
        assert!(self.running.load(SeqCst) <= 16);
        assert_eq!(self.living.load(SeqCst), 0);
        assert!(self.ran.iter().all(|ran| ran.load(SeqCst) == PER_REQUEST));
        assert_eq!((self.handle.pending(), self.handle.running()), (0, 0));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_requests_against_slow_callbacks_stay_within_the_bounds_and_drain() {
    let storm = Storm::start(100_000).await;
    storm.feed(100_000).await;
    storm.end().await;
}

/// On one thread, whose allocations are counted: so nothing else in the process has a part in it.
#[test]
fn requests_against_slow_callbacks_take_the_memory_of_those_at_once_and_not_of_those_before() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let storm = runtime.block_on(Storm::start(22_000));
    let feed = |requests| {
        runtime.block_on(async {
            storm.feed(requests).await;
            // Until the requests have piled up again.
            let_others_run().await;
        });
    };
    feed(1_000);
    let grown = allocation_counter::measure(|| feed(20_000));
    // One allocation that each request leaves behind would make 20,000.
    assert!(grown.count_max < 1_000, "{grown:?}");
    assert!(grown.bytes_max < 100_000, "{grown:?}");
    runtime.block_on(async {
        storm.feed(1_000).await;
        storm.end().await;
    });
}

struct CountsFailures(Arc<AtomicUsize>);

impl DeferObserver for CountsFailures {
    fn finished(&self, _: &CallbackInfo<'_>, finished: &Finished<'_>) {
        self.0.fetch_add(usize::from(!finished.is_ok()), SeqCst);
    }
}

/// Registers itself again until it is told to stop, or for far too long; it never waits.
fn again_until(stop: Arc<AtomicBool>, at_most: usize) {
    defer(async move {
        assert!(at_most > 0, "nobody else got to the thread");
        if !stop.load(SeqCst) {
            again_until(stop, at_most - 1);
        }
    })
    .name("again");
}

#[tokio::test]
async fn callbacks_that_never_wait_let_others_have_the_thread() {
    let failed = Arc::new(AtomicUsize::new(0));
    for layer in [DeferLayer::new(), DeferLayer::new().concurrent()] {
        let layer = layer.observer(CountsFailures(failed.clone()));
        let handle = layer.handle();
        let stop = Arc::new(AtomicBool::new(false));
        let unit = tokio::spawn(layer.scope({
            let stop = stop.clone();
            async move { again_until(stop, 100_000) }
        }));
        // There is one thread, so this task goes on only if the callbacks let it.
        while handle.running() == 0 && handle.pending() == 0 {
            tokio::task::yield_now().await;
        }
        stop.store(true, SeqCst);
        in_time(unit).await.unwrap();
        assert_eq!(failed.load(SeqCst), 0);
    }
}

#[tokio::test]
async fn a_scope_inside_of_a_callback_needs_no_turn_of_its_own() {
    let layer = DeferLayer::new().max_concurrency(1);
    let ran = Arc::new(AtomicUsize::new(0));
    let (inner, counted) = (layer.clone(), ran.clone());
    let unit = layer.scope(async move {
        defer(async move {
            let nested = inner.scope(async move {
                defer(async move {
                    counted.fetch_add(1, SeqCst);
                });
            });
            nested.await;
        });
    });
    in_time(unit).await;
    assert_eq!(ran.load(SeqCst), 1);
}

#[tokio::test]
async fn a_scope_inside_of_what_has_no_turn_waits_for_its_own() {
    let layer = DeferLayer::new().max_concurrency(1);
    let gate = Arc::new(Semaphore::new(0));
    let opened = gate.clone();
    let first = tokio::spawn(layer.scope(async move {
        defer(async move { opened.acquire().await.unwrap().forget() });
    }));
    let ran = Arc::new(AtomicUsize::new(0));
    let nested = || {
        let (layer, counted) = (layer.clone(), ran.clone());
        async move {
            let inner = layer.scope(async move {
                defer(async move {
                    counted.fetch_add(1, SeqCst);
                });
            });
            inner.await;
        }
    };
    let in_a_unit = tokio::spawn(layer.scope(nested()));
    let in_a_callback = nested();
    let of_another_layer = tokio::spawn(DeferLayer::new().scope(async move {
        defer(in_a_callback);
    }));
    let_others_run().await;
    assert_eq!(ran.load(SeqCst), 0);
    gate.add_permits(1);
    for unit in [first, in_a_unit, of_another_layer] {
        in_time(unit).await.unwrap();
    }
    assert_eq!(ran.load(SeqCst), 2);
}

/// So many clones of a service whose handler waits at the gate before it defers.
fn waits_before_it_defers(
    layer: &DeferLayer,
    gate: &Arc<Semaphore>,
    callbacks: &Arc<Semaphore>,
    requests: usize,
) -> Vec<JoinHandle<StatusCode>> {
    let (gate, callbacks) = (gate.clone(), callbacks.clone());
    let service = layer.layer(service_fn(move |_: Request<Body>| {
        let (gate, callbacks) = (gate.clone(), callbacks.clone());
        async move {
            gate.acquire().await.unwrap().forget();
            defer(async move { callbacks.acquire().await.unwrap().forget() });
            Ok::<_, Infallible>(Response::new(Body::empty()))
        }
    }));
    let requests = (0..requests).map(|_| tokio::spawn(send(service.clone())));
    requests.collect()
}

#[tokio::test]
async fn who_is_let_in_and_has_not_deferred_yet_has_a_place() {
    let layer = DeferLayer::new().max_pending(3);
    let handle = layer.handle();
    let (gate, callbacks) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let requests = waits_before_it_defers(&layer, &gate, &callbacks, 500);
    // All of them may defer at once, if they are inside.
    gate.add_permits(500);
    for done in 0..500 {
        let_others_run().await;
        let inside = handle.pending() + handle.running();
        assert!(inside <= 3, "{inside} after {done}");
        assert!(inside > 0);
        callbacks.add_permits(1);
    }
    for request in requests {
        assert_eq!(in_time(request).await.unwrap(), 200);
    }
    handle.wait_idle().await;
}

#[tokio::test]
async fn a_place_is_free_again_when_its_request_defers_nothing_or_is_dropped() {
    let layer = DeferLayer::new().max_pending(1);
    let (gate, callbacks) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let defers_nothing = layer.layer(service_fn(|_: Request<Body>| async {
        Ok::<_, Infallible>(Response::new(Body::from("hello")))
    }));

    // Its response is not over.
    let response = defers_nothing.clone().oneshot(request()).await.unwrap();
    let mut next = defers_nothing.clone();
    assert!(poll!(next.ready()).is_pending());
    response.into_body().collect().await.unwrap();
    in_time(next.ready()).await.unwrap();

    // It is ready, and so has the place; and is dropped.
    let mut other = defers_nothing.clone();
    assert!(poll!(other.ready()).is_pending());
    drop(next);
    in_time(other.ready()).await.unwrap();
    drop(other);

    // Its handler is dropped.
    let cancelled = waits_before_it_defers(&layer, &gate, &callbacks, 1);
    let_others_run().await;
    let mut after = defers_nothing;
    assert!(poll!(after.ready()).is_pending());
    cancelled[0].abort();
    in_time(after.ready()).await.unwrap();
}

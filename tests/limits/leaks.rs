//! Nothing of a scope or a callback is left when it is over, whatever points at what.
//!
//! Each callback carries a [`Token`]. Allocations are counted, too: what a request leaves behind
//! adds up to a number that can't be zero.

use std::{
    future::pending,
    sync::{Arc, Mutex, Weak},
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::Request,
    http::StatusCode,
    routing::get,
};
use axum_defer::{DeferLayer, DeferredCallback, DeferredCallbackCollection, defer, defer_blocking};
use http_body_util::BodyExt;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    runtime::{Builder, Handle, Runtime},
};
use tower::{Service, service_fn};

use crate::support::planned_panics::{PLANNED, is_planned, silence_panics};

/// Something that a callback holds, of which one can see that it is gone.
struct Tokens(Vec<Weak<()>>);

impl Tokens {
    fn new() -> Arc<Mutex<Self>> {
        Arc::new(Mutex::new(Self(Vec::new())))
    }
}

trait Issue {
    fn issue(&self) -> Arc<()>;
    fn assert_all_gone(&self, count: usize);
}

impl Issue for Arc<Mutex<Tokens>> {
    fn issue(&self) -> Arc<()> {
        let token = Arc::new(());
        self.lock().unwrap().0.push(Arc::downgrade(&token));
        token
    }

    fn assert_all_gone(&self, count: usize) {
        let tokens = &self.lock().unwrap().0;
        assert_eq!(tokens.len(), count, "as many as the test issues");
        let left = tokens.iter().filter(|token| token.strong_count() > 0);
        assert_eq!(left.count(), 0, "tokens that are left");
    }
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

fn current() -> DeferredCallbackCollection {
    DeferredCallbackCollection::current().expect("inside of a scope")
}

/// Sends one request to `handler` inside of `layer`, and takes all of the response.
async fn request<F>(layer: &DeferLayer, handler: impl FnOnce() -> F)
where
    F: Future<Output = StatusCode> + Send + 'static,
{
    let mut handler = Some(handler);
    let mut service = layer.layer(service_fn(|_: Request| {
        let handler = handler.take().unwrap();
        let status = handler();
        async move {
            let mut response = axum::response::Response::new(Body::from("hello"));
            *response.status_mut() = status.await;
            Ok::<_, std::convert::Infallible>(response)
        }
    }));
    let response = service.call(Request::default()).await.unwrap();
    response.into_body().collect().await.unwrap();
}

/// Callbacks that hold all there is to hold of their own scope; `change` decides their fate.
fn deferred_in_circles(
    tokens: &Arc<Mutex<Tokens>>,
    change: impl Fn(DeferredCallback) -> DeferredCallback,
) {
    // Its own collection.
    let (token, own) = (tokens.issue(), current());
    drop(change(defer(async move {
        let _held = (token, own);
    })));

    // Its own handle.
    let token = tokens.issue();
    let slot: Arc<Mutex<Option<DeferredCallback>>> = Arc::default();
    let own = slot.clone();
    let handle = change(defer(move || async move {
        let _held = (token, own);
    }));
    *slot.lock().unwrap() = Some(handle);

    // A predicate that holds the collection.
    let (token, own) = (tokens.issue(), current());
    let handle = defer(async {}).when(move |completion| {
        let _held = (&token, &own);
        completion.is_success()
    });
    drop(change(handle));
}

#[test]
fn callbacks_that_hold_their_own_scope_are_gone_when_they_have_run() {
    let tokens = Tokens::new();
    runtime().block_on(async {
        let layer = DeferLayer::new();
        request(&layer, || {
            let tokens = tokens.clone();
            async move {
                deferred_in_circles(&tokens, |handle| handle);
                StatusCode::OK
            }
        })
        .await;
        layer.handle().wait_idle().await;
        tokens.assert_all_gone(3);
    });
}

#[test]
fn callbacks_that_hold_their_own_scope_are_gone_when_they_are_skipped() {
    let tokens = Tokens::new();
    runtime().block_on(async {
        let layer = DeferLayer::new();
        request(&layer, || {
            let tokens = tokens.clone();
            async move {
                deferred_in_circles(&tokens, |handle| handle);
                StatusCode::NOT_FOUND
            }
        })
        .await;
        layer.handle().wait_idle().await;
        tokens.assert_all_gone(3);
    });
}

#[test]
fn callbacks_that_hold_their_own_scope_are_gone_when_they_are_cancelled() {
    let tokens = Tokens::new();
    runtime().block_on(async {
        let layer = DeferLayer::new();
        request(&layer, || {
            let tokens = tokens.clone();
            async move {
                deferred_in_circles(&tokens, |handle| {
                    assert!(handle.cancel());
                    handle
                });
                tokens.assert_all_gone(3);
                StatusCode::OK
            }
        })
        .await;
    });
}

#[test]
fn callbacks_that_hold_their_own_scope_are_gone_when_they_are_replaced() {
    let tokens = Tokens::new();
    runtime().block_on(async {
        let layer = DeferLayer::new();
        request(&layer, || {
            let tokens = tokens.clone();
            async move {
                deferred_in_circles(&tokens, |handle| handle.name("same"));
                defer(async {}).name("same");
                tokens.assert_all_gone(3);
                StatusCode::OK
            }
        })
        .await;
    });
}

#[test]
fn callbacks_that_hold_their_own_scope_are_gone_when_the_handler_never_answers() {
    let tokens = Tokens::new();
    runtime().block_on(async {
        let layer = DeferLayer::new();
        let never = request(&layer, || {
            let tokens = tokens.clone();
            async move {
                deferred_in_circles(&tokens, |handle| handle);
                pending().await
            }
        });
        let mut never = Box::pin(never);
        assert!(futures_util::poll!(never.as_mut()).is_pending());
        drop(never);
        layer.handle().wait_idle().await;
        tokens.assert_all_gone(3);
    });
}

#[test]
fn callbacks_that_hold_their_own_scope_are_gone_when_they_time_out() {
    let tokens = Tokens::new();
    let paused = Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    paused.block_on(async {
        let layer = DeferLayer::new().timeout(Duration::from_secs(1));
        request(&layer, || {
            let tokens = tokens.clone();
            async move {
                let (token, own) = (tokens.issue(), current());
                defer(async move {
                    let _held = (token, own);
                    pending::<()>().await
                });
                StatusCode::OK
            }
        })
        .await;
        layer.handle().wait_idle().await;
        tokens.assert_all_gone(1);
    });
}

#[test]
fn callbacks_that_hold_their_own_scope_are_gone_when_the_runtime_loses_them() {
    let tokens = Tokens::new();
    let runtime = runtime();
    let layer = DeferLayer::new();
    runtime.block_on(request(&layer, || {
        let tokens = tokens.clone();
        async move {
            // The first one is cut off half-way, those behind it never start.
            let (token, own) = (tokens.issue(), current());
            defer(async move {
                let _held = (token, own);
                pending::<()>().await
            });
            deferred_in_circles(&tokens, |handle| handle);
            StatusCode::OK
        }
    }));
    runtime.block_on(tokio::task::yield_now());
    assert_eq!(layer.handle().running(), 1);
    drop(runtime);
    assert_eq!((layer.handle().pending(), layer.handle().running()), (0, 0));
    tokens.assert_all_gone(4);
}

#[test]
fn a_handle_and_a_collection_that_are_kept_for_ever_keep_no_callback() {
    let tokens = Tokens::new();
    let kept = Arc::new(Mutex::new(Vec::new()));
    runtime().block_on(async {
        let layer = DeferLayer::new();
        for status in [StatusCode::OK, StatusCode::NOT_FOUND] {
            request(&layer, || {
                let (tokens, kept) = (tokens.clone(), kept.clone());
                async move {
                    let (token, own) = (tokens.issue(), current());
                    let handle = defer(async move {
                        let _held = (token, own);
                    });
                    kept.lock().unwrap().push((handle, current()));
                    status
                }
            })
            .await;
        }
        layer.handle().wait_idle().await;
        tokens.assert_all_gone(2);
        for (handle, collection) in kept.lock().unwrap().drain(..) {
            assert!(!handle.cancel() && collection.is_empty());
        }
    });
}

#[test]
fn a_blocking_closure_that_holds_its_own_scope_is_gone_when_it_has_run() {
    let tokens = Tokens::new();
    runtime().block_on(async {
        let layer = DeferLayer::new();
        for status in [StatusCode::OK, StatusCode::NOT_FOUND] {
            request(&layer, || {
                let tokens = tokens.clone();
                async move {
                    let (token, own) = (tokens.issue(), current());
                    defer_blocking(move || {
                        let _held = (token, own);
                    });
                    status
                }
            })
            .await;
        }
        layer.handle().wait_idle().await;
        tokens.assert_all_gone(2);
    });
}

#[test]
fn a_callback_that_was_pushed_late_is_gone_when_it_has_run() {
    let tokens = Tokens::new();
    runtime().block_on(async {
        let layer = DeferLayer::new();
        let mut kept = None;
        request(&layer, || {
            kept = Some(current());
            async { StatusCode::OK }
        })
        .await;
        let collection = kept.unwrap();
        let (token, own) = (tokens.issue(), collection.clone());
        collection.defer(async move {
            let _held = (token, own);
        });
        layer.handle().wait_idle().await;
        tokens.assert_all_gone(1);
    });
}

/// One request of every kind.
async fn one_of_each(layer: &DeferLayer, tokens: &Arc<Mutex<Tokens>>) {
    request(layer, async || StatusCode::OK).await;
    request(layer, async || {
        defer(async {}).cancel();
        StatusCode::OK
    })
    .await;
    for status in [StatusCode::OK, StatusCode::NOT_FOUND] {
        request(layer, || {
            let tokens = tokens.clone();
            async move {
                deferred_in_circles(&tokens, |handle| handle);
                deferred_in_circles(&tokens, |handle| handle.name("same").always());
                let cancelled = defer(async {});
                cancelled.cancel();
                defer(async { Err::<(), _>("planned") }).name("fails");
                current().defer(async {
                    defer(async {}).name("nested");
                    current().forget("nested");
                });
                status
            }
        })
        .await;
    }
    layer.handle().wait_idle().await;
    tokens.lock().unwrap().0.clear();
    // A runner whose callbacks were all withdrawn is still to find that out.
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
}

#[test]
fn a_thousand_requests_allocate_nothing_that_stays() {
    let runtime = runtime();
    let layer = DeferLayer::new();
    let tokens = Tokens::new();
    // Whatever grows to its size once.
    runtime.block_on(one_of_each(&layer, &tokens));
    let left = allocation_counter::measure(|| {
        for _ in 0..1000 {
            runtime.block_on(one_of_each(&layer, &tokens));
        }
    });
    assert_eq!((left.count_current, left.bytes_current), (0, 0), "{left:?}");
}

/// Its panic's payload panics when it is dropped, with a payload of its own.
struct PanicsTwice;

impl Drop for PanicsTwice {
    fn drop(&mut self) {
        panic!("{PLANNED}");
    }
}

#[test]
fn panics_leave_nothing_behind() {
    // The hook's output is kept by the test harness, and counts.
    silence_panics(|payload| is_planned(payload) || payload.is::<PanicsTwice>());
    let runtime = runtime();
    let layer = DeferLayer::new();
    let panics = || {
        runtime.block_on(async {
            request(&layer, || async {
                defer(async { panic!("{PLANNED}") });
                defer(async { std::panic::panic_any(PanicsTwice) });
                StatusCode::OK
            })
            .await;
            layer.handle().wait_idle().await;
        });
    };
    panics();
    let left = allocation_counter::measure(|| (0..10).for_each(|_| panics()));
    assert_eq!((left.count_current, left.bytes_current), (0, 0), "{left:?}");
}

/// Over a socket, through the second level of sent.
#[test]
fn a_thousand_connections_allocate_nothing_that_stays() {
    let runtime = runtime();
    let layer = DeferLayer::new();
    let deferred = layer.handle();
    let app: Router = Router::new()
        .route(
            "/",
            get(async || {
                let own = current();
                defer(async move { drop(own) }).name("named").always();
                defer(async {}).cancel();
                Bytes::from_static(b"hello")
            }),
        )
        .layer(layer);
    let (address, _server) = runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = axum_defer::serve(listener, app).into_future();
        (address, tokio::spawn(server))
    });
    let exchange = |count: usize| {
        allocation_counter::measure(|| {
            runtime.block_on(async {
                for number in 0..count {
                    let mut client = TcpStream::connect(address).await.unwrap();
                    client
                        .write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
                        .await
                        .unwrap();
                    // Every other client leaves without its answer.
                    if number % 2 == 0 {
                        let mut answer = Vec::new();
                        client.read_to_end(&mut answer).await.unwrap();
                        assert!(answer.ends_with(b"hello"));
                    }
                    drop(client);
                }
                // The server has seen the last of them leave, and has nothing to do any more.
                let mut last = TcpStream::connect(address).await.unwrap();
                last.shutdown().await.unwrap();
                last.read_to_end(&mut Vec::new()).await.unwrap();
                deferred.wait_idle().await;
                while Handle::current().metrics().num_alive_tasks() > 1 {
                    tokio::task::yield_now().await;
                }
                for _ in 0..10 {
                    tokio::task::yield_now().await;
                }
            });
        })
    };
    exchange(20);
    let left = exchange(1000);
    assert_eq!((left.count_current, left.bytes_current), (0, 0), "{left:?}");
}

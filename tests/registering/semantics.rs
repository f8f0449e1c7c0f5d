//! What a callback may be, which ones run, in what order, and what happens to the others.

use std::{
    convert::Infallible,
    error::Error,
    fmt,
    future::{Future, ready},
    io,
    pin::Pin,
    process::ExitCode,
    sync::{
        Arc, Barrier, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::Poll,
    thread,
    time::Duration,
};

use axum::{
    Extension, Router,
    body::Body,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::get,
};
use axum_defer::{
    CallbackInfo, Completion, DeferLayer, DeferObserver, DeferredCallbackCollection,
    Delivery::{self, Aborted, BodyError, Complete, NoResponse},
    Finished, Level, LostReason, defer, defer_blocking, scope, try_defer,
};
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, stream};
use http::{HeaderName, Request, header};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tokio::sync::{mpsc, oneshot};
use tower::{Service, ServiceExt, service_fn, util::MapRequestLayer};
use tower_http::{
    catch_panic::CatchPanicLayer,
    classify::{SharedClassifier, StatusInRangeAsFailures},
};

use crate::support::{self, Log, Server, What, frames, in_time};

/// What happened, in order; also an observer.
#[derive(Clone, Default)]
struct Steps(Arc<Mutex<Vec<String>>>);

impl Steps {
    fn note(&self, step: impl Into<String>) {
        self.0.lock().unwrap().push(step.into());
    }

    /// A callback that writes down that it ran.
    fn on_run(&self, step: &'static str) -> impl Future<Output = ()> + Send + 'static {
        let steps = self.clone();
        async move { steps.note(step) }
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl DeferObserver for Steps {
    fn replaced(&self, callback: &CallbackInfo<'_>) {
        self.note(format!("replaced {}", callback.name().unwrap_or("-")));
    }
    fn finished(&self, callback: &CallbackInfo<'_>, finished: &Finished<'_>) {
        let name = callback.name().unwrap_or("-");
        self.note(format!("finished {name}: {}", finished.outcome));
    }
    fn skipped(&self, callback: &CallbackInfo<'_>, _: &Completion) {
        self.note(format!("skipped {}", callback.name().unwrap_or("-")));
    }
    fn cancelled(&self, callback: &CallbackInfo<'_>) {
        self.note(format!("cancelled {}", callback.name().unwrap_or("-")));
    }
    fn lost(&self, callback: &CallbackInfo<'_>, reason: LostReason) {
        self.note(format!("lost {}: {reason}", callback.name().unwrap_or("-")));
    }
}

/// The response of a handler behind the layer, with its body unread.
async fn reply<R: IntoResponse>(layer: &DeferLayer, handler: impl AsyncFn() -> R) -> Response {
    let answer = || handler().now_or_never().expect("it waits for nothing");
    reply_later(layer, || ready(answer().into_response())).await
}

/// The same for a handler that waits, and so borrows nothing.
async fn reply_later<F>(layer: &DeferLayer, handler: impl Fn() -> F) -> Response
where
    F: Future<Output = Response> + Send + 'static,
{
    let service = service_fn(|_: Request<Body>| handler().map(Ok::<_, Infallible>));
    let response = layer.layer(service).oneshot(support::get("/")).await;
    response.unwrap().map(Body::new)
}

/// One request from beginning to end: its callbacks have run when this returns.
async fn respond<R: IntoResponse>(layer: &DeferLayer, handler: impl AsyncFn() -> R) {
    read_to_the_end(layer, reply(layer, handler).await).await;
}

async fn respond_later<F>(layer: &DeferLayer, handler: impl Fn() -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let response = reply_later(layer, || handler().map(IntoResponse::into_response)).await;
    read_to_the_end(layer, response).await;
}

async fn read_to_the_end(layer: &DeferLayer, response: Response) {
    let _ = response.into_body().collect().await;
    in_time(layer.handle().wait_idle()).await;
}

fn data() -> Result<Frame<Bytes>, io::Error> {
    Ok(Frame::data(Bytes::from_static(b"hello")))
}

const FAILED: StatusCode = StatusCode::INTERNAL_SERVER_ERROR;

mod names_and_order {
    use super::*;

    #[tokio::test]
    async fn callbacks_run_in_registration_order() {
        let steps = Steps::default();
        respond(&DeferLayer::new(), async || {
            for (begin, end) in [("a", "A"), ("b", "B"), ("c", "C")] {
                let steps = steps.clone();
                defer(async move {
                    steps.note(begin);
                    tokio::task::yield_now().await;
                    steps.note(end);
                });
            }
            steps.note("handler");
        })
        .await;
        assert_eq!(steps.take(), ["handler", "a", "A", "b", "B", "c", "C"]);
    }

    #[tokio::test]
    async fn concurrent_callbacks_run_together() {
        let steps = Steps::default();
        let layer = DeferLayer::new().concurrent();
        respond(&layer, async || {
            let (open, opened) = oneshot::channel();
            let first = steps.clone();
            defer(async move {
                opened.await.unwrap();
                first.note("first, which waits for the second");
            });
            let second = steps.clone();
            defer(async move {
                second.note("second");
                open.send(()).unwrap();
            });
        })
        .await;
        assert_eq!(
            steps.take(),
            ["second", "first, which waits for the second"]
        );
    }

    #[tokio::test]
    async fn last_of_a_name_keeps_its_position() {
        let steps = Steps::default();
        let layer = DeferLayer::new().observer(steps.clone());
        respond(&layer, async || {
            defer(steps.on_run("mail 1")).name("mail");
            defer(steps.on_run("log")).name("log");
            defer(steps.on_run("mail 2")).name("mail");
        })
        .await;
        assert_eq!(
            steps.take(),
            [
                "replaced mail",
                "log",
                "finished log: ok",
                "mail 2",
                "finished mail: ok"
            ]
        );
    }

    #[tokio::test]
    async fn replacement_does_not_inherit_always() {
        let steps = Steps::default();
        respond(&DeferLayer::new(), async || {
            defer(steps.on_run("first")).name("a").always();
            defer(steps.on_run("second")).name("a");
            defer(steps.on_run("third")).name("b");
            defer(steps.on_run("fourth")).name("b").always();
            FAILED
        })
        .await;
        assert_eq!(steps.take(), ["fourth"]);
    }

    #[tokio::test]
    async fn renaming_to_a_taken_name_replaces() {
        let steps = Steps::default();
        respond(&DeferLayer::new(), async || {
            defer(steps.on_run("first")).name("a");
            defer(steps.on_run("second")).name("b").name("a");
            defer(steps.on_run("third")).name("b");
        })
        .await;
        assert_eq!(steps.take(), ["second", "third"]);

        respond(&DeferLayer::new(), async || {
            let first = defer(steps.on_run("first"));
            defer(steps.on_run("second")).name("a");
            // Registered earlier, so it gives way although it is named later.
            let first = first.name("a");
            assert!(!first.cancel());
        })
        .await;
        assert_eq!(steps.take(), ["second"]);
    }

    #[tokio::test]
    async fn forgotten_name_can_be_used_again() {
        let steps = Steps::default();
        let layer = DeferLayer::new().observer(steps.clone());
        respond(&layer, async || {
            let callbacks = DeferredCallbackCollection::current().unwrap();
            defer(steps.on_run("first")).name("a");
            assert_eq!(callbacks.forget("unknown"), 0);
            assert_eq!((callbacks.forget("a"), callbacks.forget("a")), (1, 0));
            defer(steps.on_run("again")).name("a");
        })
        .await;
        assert_eq!(steps.take(), ["cancelled a", "again", "finished a: ok"]);
    }

    #[tokio::test]
    async fn callback_forgets_a_later_one() {
        let steps = Steps::default();
        respond(&DeferLayer::new(), async || {
            defer(async {
                let callbacks = DeferredCallbackCollection::current().unwrap();
                assert_eq!(callbacks.forget("later"), 1);
                assert_eq!(callbacks.forget("this one, which has started"), 0);
            })
            .name("this one, which has started");
            defer(steps.on_run("later")).name("later");
            defer(steps.on_run("last"));
        })
        .await;
        assert_eq!(steps.take(), ["last"]);
    }

    #[tokio::test]
    async fn cancel_returns_whether_it_prevented() {
        let steps = Steps::default();
        respond(&DeferLayer::new(), async || {
            let callback = defer(steps.on_run("never")).always();
            assert!(callback.cancel());
            assert!(!callback.cancel());
            defer(steps.on_run("other"));
        })
        .await;
        assert_eq!(steps.take(), ["other"]);
    }

    #[tokio::test]
    async fn collection_lists_pending_names() {
        assert!(DeferredCallbackCollection::current().is_none());
        respond(&DeferLayer::new(), async || {
            let callbacks = DeferredCallbackCollection::current().unwrap();
            assert!(callbacks.is_empty());
            defer(async {}).name("b");
            callbacks.defer(async {});
            callbacks.defer_blocking(|| ()).name(String::from("a"));
            assert_eq!((callbacks.len(), callbacks.is_empty()), (3, false));
            assert_eq!(callbacks.names(), ["b", "a"]);
            assert!(callbacks.contains("a") && !callbacks.contains("c"));
            defer(async move {
                assert!(callbacks.is_empty());
            });
        })
        .await;
    }
}

mod nesting {
    use super::*;

    #[tokio::test]
    async fn nested_callback_runs_last() {
        let steps = Steps::default();
        respond(&DeferLayer::new(), async || {
            let inside = steps.clone();
            defer(async move {
                inside.note("outer");
                let innermost = inside.clone();
                defer(async move {
                    innermost.note("inner");
                    defer(innermost.on_run("innermost"));
                });
            });
            defer(steps.on_run("other"));
        })
        .await;
        assert_eq!(steps.take(), ["outer", "other", "inner", "innermost"]);
    }

    #[tokio::test]
    async fn nested_callback_has_same_completion() {
        for (status, expected) in [
            (StatusCode::OK, &["outer", "default", "blocking"][..]),
            (FAILED, &["outer", "blocking"]),
        ] {
            let (log, mut events) = Log::new();
            respond(&DeferLayer::new(), async || {
                let inside = log.clone();
                defer(move |completion: Completion| async move {
                    inside.ran("outer", completion);
                    inside.defer("default");
                    defer_blocking(move || drop(inside.defer("blocking").always())).always();
                })
                .always();
                status
            })
            .await;
            let seen = events.so_far();
            let names: Vec<_> = seen.iter().map(|(name, _)| name.as_str()).collect();
            assert_eq!(names, expected);
            assert!(seen.iter().all(|(_, what)| *what == seen[0].1));
        }
    }

    #[tokio::test]
    async fn callback_may_replace_itself() {
        fn again(left: usize, count: Arc<AtomicUsize>) {
            if left > 0 {
                defer(async move {
                    count.fetch_add(1, SeqCst);
                    again(left - 1, count);
                })
                .name("again");
            }
        }
        let count = Arc::new(AtomicUsize::new(0));
        respond(&DeferLayer::new(), async || again(1_000, count.clone())).await;
        assert_eq!(count.load(SeqCst), 1_000);
    }

    #[tokio::test]
    async fn nested_name_replaces_a_pending_one() {
        let steps = Steps::default();
        respond(&DeferLayer::new(), async || {
            let inside = steps.clone();
            defer(async move {
                defer(inside.on_run("new")).name("a");
            });
            defer(steps.on_run("old")).name("a");
            defer(steps.on_run("last"));
        })
        .await;
        assert_eq!(steps.take(), ["last", "new"]);
    }

    #[tokio::test]
    async fn dropped_capture_may_defer() {
        struct DefersOnDrop(Steps);
        impl Drop for DefersOnDrop {
            fn drop(&mut self) {
                defer(self.0.on_run("deferred in drop"));
            }
        }
        let steps = Steps::default();
        respond(&DeferLayer::new(), async || {
            let held = DefersOnDrop(steps.clone());
            defer(async move {
                held.0.note("callback");
            });
            defer(steps.on_run("other"));
        })
        .await;
        assert_eq!(steps.take(), ["callback", "other", "deferred in drop"]);
    }
}

mod late {
    use super::*;

    #[tokio::test]
    async fn late_callback_runs_at_once() {
        let (log, mut events) = Log::new();
        let layer = DeferLayer::new().observer(log.clone());
        let (kept, callbacks) = oneshot::channel();
        let kept = Mutex::new(Some(kept));
        respond(&layer, async || {
            log.defer("first");
            let callbacks = DeferredCallbackCollection::current().unwrap();
            assert!(kept.lock().unwrap().take().unwrap().send(callbacks).is_ok());
            "hello"
        })
        .await;
        let callbacks = callbacks.await.unwrap();
        let (_, first) = events.next().await;
        for _ in 0..2 {
            let late = log.clone();
            callbacks.defer(move |completion: Completion| async move {
                late.ran("late", completion);
            });
            assert_eq!(events.next().await, ("late".to_owned(), first.clone()));
        }
    }

    #[tokio::test]
    async fn late_callback_obeys_rules() {
        let steps = Steps::default();
        let layer = DeferLayer::new().observer(steps.clone());
        let callbacks = Mutex::new(None);
        respond(&layer, async || {
            *callbacks.lock().unwrap() = DeferredCallbackCollection::current();
            FAILED
        })
        .await;
        let callbacks = callbacks.into_inner().unwrap().unwrap();
        callbacks.defer(steps.on_run("default")).name("default");
        layer.handle().wait_idle().await;
        callbacks.defer(async {
            panic!("on purpose");
        });
        layer.handle().wait_idle().await;
        assert_eq!(steps.take(), ["skipped default", "skipped -"]);
    }

    #[tokio::test]
    async fn task_defers_through_moved_collection() {
        let steps = Steps::default();
        respond_later(&DeferLayer::new(), || {
            let steps = steps.clone();
            async move {
                let callbacks = DeferredCallbackCollection::current().unwrap();
                tokio::spawn(async move {
                    assert!(DeferredCallbackCollection::current().is_none());
                    callbacks.defer(steps.on_run("from a task"));
                })
                .await
                .unwrap();
            }
        })
        .await;
        assert_eq!(steps.take(), ["from a task"]);
    }

    #[tokio::test]
    async fn callback_deferred_during_run_waits() {
        let steps = Steps::default();
        respond(&DeferLayer::new(), async || {
            let callbacks = DeferredCallbackCollection::current().unwrap();
            let (first, from_a_task) = (steps.clone(), steps.on_run("from a task"));
            defer(async move {
                let task = tokio::spawn(async move { drop(callbacks.defer(from_a_task)) });
                task.await.unwrap();
                for _ in 0..100 {
                    tokio::task::yield_now().await;
                }
                first.note("first");
            });
        })
        .await;
        assert_eq!(steps.take(), ["first", "from a task"]);
    }

    #[tokio::test]
    async fn foreign_callback_waits_for_its_handle() {
        let steps = Steps::default();
        let layer = DeferLayer::new().observer(steps.clone());
        let callbacks = Mutex::new(None);
        respond(&layer, async || {
            *callbacks.lock().unwrap() = DeferredCallbackCollection::current();
        })
        .await;
        let callbacks = callbacks.into_inner().unwrap().unwrap();
        respond_later(&layer, || {
            let (callbacks, steps) = (callbacks.clone(), steps.clone());
            async move {
                let handle = callbacks.defer(steps.on_run("late"));
                for _ in 0..100 {
                    tokio::task::yield_now().await;
                }
                handle.name("late").when(|_| false);
            }
        })
        .await;
        assert_eq!(steps.take(), ["skipped late"]);
    }

    #[tokio::test]
    async fn callback_with_kept_handle_is_overtaken() {
        let steps = Steps::default();
        let layer = DeferLayer::new();
        let idle = layer.handle();
        let callbacks = Mutex::new(None);
        respond(&layer, async || {
            *callbacks.lock().unwrap() = DeferredCallbackCollection::current();
        })
        .await;
        let callbacks = callbacks.into_inner().unwrap().unwrap();
        let handle = callbacks.defer(steps.on_run("first"));
        let (release, released) = oneshot::channel::<()>();
        let (start, started) = oneshot::channel::<()>();
        let second = steps.on_run("second");
        drop(callbacks.defer(async move {
            second.await;
            start.send(()).unwrap();
            released.await.unwrap();
        }));
        drop(callbacks.defer(steps.on_run("third")));
        in_time(started).await.unwrap();
        assert_eq!(steps.take(), ["second"]);
        drop(handle);
        release.send(()).unwrap();
        in_time(idle.wait_idle()).await;
        assert_eq!(steps.take(), ["first", "third"]);
    }

    #[tokio::test]
    async fn late_handle_does_nothing() {
        let steps = Steps::default();
        let layer = DeferLayer::new().observer(steps.clone());
        let kept = Mutex::new(Vec::new());
        respond(&layer, async || {
            let mut kept = kept.lock().unwrap();
            kept.push(defer(steps.on_run("ran")).name("ran"));
            kept.push(
                defer(steps.on_run("skipped"))
                    .name("skipped")
                    .when(|_| false),
            );
            kept.push(defer(steps.on_run("cancelled")).name("cancelled"));
            assert!(kept[2].cancel());
        })
        .await;
        let outcome = [
            "cancelled cancelled",
            "ran",
            "finished ran: ok",
            "skipped skipped",
        ];
        assert_eq!(steps.take(), outcome);
        for handle in kept.into_inner().unwrap() {
            assert!(!handle.cancel());
            let handle = handle
                .name("other")
                .always()
                .when(|_| panic!("never asked"))
                .timeout(Duration::ZERO);
            assert!(!handle.cancel());
        }
        in_time(layer.handle().wait_idle()).await;
        assert_eq!(steps.take(), [""; 0]);
        assert_eq!(layer.handle().pending(), 0);
    }

    #[tokio::test]
    async fn handle_of_running_callback_does_nothing() {
        let steps = Steps::default();
        let layer = DeferLayer::new().observer(steps.clone());
        let (hand_in, handle) = oneshot::channel();
        let hand_in = Mutex::new(Some((hand_in, handle)));
        respond(&layer, async || {
            let (hand_in, handle) = hand_in.lock().unwrap().take().unwrap();
            let running = steps.clone();
            let own = defer(async move {
                let own: axum_defer::DeferredCallback = handle.await.unwrap();
                assert!(!own.cancel());
                drop(own.name("renamed").when(|_| false));
                running.note("ran");
            })
            .name("original");
            assert!(hand_in.send(own).is_ok());
        })
        .await;
        assert_eq!(steps.take(), ["ran", "finished original: ok"]);
    }
}

mod layers {
    use super::*;

    #[tokio::test]
    async fn inner_layer_owns_callbacks() {
        let (inner, outer, middle) = (Steps::default(), Steps::default(), Steps::default());
        let outer_layer = DeferLayer::new().observer(outer.clone());
        let between = middle.clone();
        let app: Router = Router::new()
            .route(
                "/",
                get(
                    async |Extension(callbacks): Extension<DeferredCallbackCollection>| {
                        callbacks.defer(async {}).name("extracted");
                        defer(async {}).name("handler");
                    },
                ),
            )
            .layer(DeferLayer::new().observer(inner.clone()))
            .layer(MapRequestLayer::new(
                move |request: axum::extract::Request| {
                    defer(between.on_run("middle")).name("middle");
                    request
                },
            ))
            .layer(outer_layer.clone());
        let (server, mut client);
        server = Server::start(app).await;
        client = server.raw().await;
        client.get("/").await;
        assert_eq!(client.response(false).await.unwrap().status, 200);
        in_time(outer_layer.handle().wait_idle()).await;
        assert_eq!(outer.take(), ["finished middle: ok"]);
        assert_eq!(middle.take(), ["middle"]);
        // Idle says nothing about the inner layer.
        client.get("/").await;
        client.response(false).await.unwrap();
        let all = in_time(async {
            loop {
                let so_far = inner.0.lock().unwrap().clone();
                if so_far.len() == 4 {
                    return so_far;
                }
                tokio::task::yield_now().await;
            }
        })
        .await;
        assert_eq!(all[..2], ["finished extracted: ok", "finished handler: ok"]);
    }

    #[tokio::test]
    async fn unused_outer_layer_stays_idle() {
        let outer = Steps::default();
        let outer_layer = DeferLayer::new().observer(outer.clone());
        let inner_layer = DeferLayer::new();
        let callbacks = Arc::new(Mutex::new(None));
        let service = service_fn(|_: Request<Body>| {
            *callbacks.lock().unwrap() = DeferredCallbackCollection::current();
            defer(async {}).always();
            assert_eq!(outer_layer.handle().pending(), 0);
            ready(Ok::<_, Infallible>(Response::new(Body::empty())))
        });
        let response = outer_layer
            .layer(inner_layer.layer(service))
            .oneshot(support::get("/"))
            .await
            .unwrap();
        drop(response);
        in_time(inner_layer.handle().wait_idle()).await;
        assert_eq!(outer.take(), [""; 0]);
    }

    #[tokio::test]
    async fn custom_classifier_decides_success() {
        let steps = Steps::default();
        let only_5xx = SharedClassifier::new(StatusInRangeAsFailures::new(500..=599));
        let layer = DeferLayer::new().classifier(only_5xx);
        for status in [404, 500] {
            let service = service_fn(|_: Request<Body>| {
                defer(steps.on_run("ran"));
                let status = StatusCode::from_u16(status).unwrap();
                ready(Ok::<_, Infallible>(status.into_response()))
            });
            drop(layer.layer(service).oneshot(support::get("/")).await);
            in_time(layer.handle().wait_idle()).await;
            let expected: &[&str] = if status == 404 { &["ran"] } else { &[] };
            assert_eq!(steps.take(), expected, "{status}");
        }
    }
}

mod rules {
    use super::*;

    #[tokio::test]
    async fn last_rule_of_a_callback_wins() {
        let steps = Steps::default();
        respond(&DeferLayer::new(), async || {
            defer(steps.on_run("default"));
            defer(steps.on_run("always")).always();
            defer(steps.on_run("when failed")).when(|c| !c.is_success());
            defer(steps.on_run("always, then when"))
                .always()
                .when(|_| false);
            defer(steps.on_run("when, then always"))
                .when(|_| false)
                .always();
            FAILED
        })
        .await;
        assert_eq!(steps.take(), ["always", "when failed", "when, then always"]);
    }

    #[tokio::test]
    async fn layer_rule_replaces_default_only() {
        let steps = Steps::default();
        let layer = DeferLayer::new().when(|c| c.status() == Some(FAILED));
        let handler = async |status| {
            defer(steps.on_run("by the layer"));
            defer(steps.on_run("always")).always();
            defer(steps.on_run("own")).when(|c| c.is_success());
            status
        };
        respond(&layer, async || handler(FAILED).await).await;
        assert_eq!(steps.take(), ["by the layer", "always"]);
        respond(&layer, async || handler(StatusCode::OK).await).await;
        assert_eq!(steps.take(), ["always", "own"]);
    }

    #[tokio::test]
    async fn rule_can_require_delivery() {
        let steps = Steps::default();
        let layer = DeferLayer::new();
        let handler = async || {
            defer(steps.on_run("by status"));
            defer(steps.on_run("if delivered")).when(|c| c.is_complete());
            "hello"
        };
        respond(&layer, handler).await;
        assert_eq!(steps.take(), ["by status", "if delivered"]);
        // Dropped unread.
        drop(reply(&layer, handler).await);
        in_time(layer.handle().wait_idle()).await;
        assert_eq!(steps.take(), ["by status"]);
    }

    #[tokio::test]
    async fn panicking_predicate_fails_its_callback() {
        let steps = Steps::default();
        let layer = DeferLayer::new()
            .when(|_| panic!("the layer's, on purpose"))
            .observer(steps.clone());
        respond(&layer, async || {
            defer(steps.on_run("never"))
                .name("a")
                .when(|_| panic!("on purpose"));
            defer(steps.on_run("never")).name("b");
            defer(steps.on_run("ran")).name("c").always();
        })
        .await;
        assert_eq!(
            steps.take(),
            [
                "finished a: panicked: on purpose",
                "finished b: panicked: the layer's, on purpose",
                "ran",
                "finished c: ok"
            ]
        );
    }

    #[tokio::test]
    async fn without_response_only_always_runs() {
        let (log, mut events) = Log::new();
        let layer = DeferLayer::new().observer(log.clone());
        let defers = move || {
            log.defer("default");
            log.defer("always").always();
        };
        let mut expect_no_response = async |case: &str| {
            in_time(layer.handle().wait_idle()).await;
            let events = events.so_far();
            assert_eq!(events.len(), 2, "{case}: {events:?}");
            assert!(matches!(events[0], (ref name, What::Skipped(_)) if name == "default"));
            let (name, What::Ran(completion)) = &events[1] else {
                panic!("{case}: {events:?}");
            };
            assert_eq!(name, "always");
            assert_eq!(completion.delivery(), NoResponse, "{case}");
            assert_eq!((completion.status(), completion.body_bytes()), (None, 0));
            assert!(!completion.is_success() && !completion.is_complete());
        };

        let service = layer.layer(service_fn(|_: Request<Body>| {
            let defers = defers.clone();
            async move {
                defers();
                Err::<Response, _>("the service failed")
            }
        }));
        let answer = service.oneshot(support::get("/")).await;
        assert_eq!(answer.unwrap_err(), "the service failed");
        expect_no_response("an error").await;

        let service = service_fn(|_: Request<Body>| {
            let defers = defers.clone();
            async move {
                defers();
                std::future::pending::<Result<Response, Infallible>>().await
            }
        });
        let mut service = layer.layer(service);
        let mut future = Box::pin(service.call(support::get("/")));
        assert!(future.as_mut().now_or_never().is_none());
        drop(future);
        expect_no_response("a dropped future").await;

        let service = layer.layer(service_fn(|_: Request<Body>| {
            let defers = defers.clone();
            async move {
                defers();
                if true {
                    panic!("on purpose");
                }
                Ok::<_, Infallible>(Response::new(Body::empty()))
            }
        }));
        let answer = std::panic::AssertUnwindSafe(service.oneshot(support::get("/")));
        assert!(answer.catch_unwind().await.is_err());
        expect_no_response("a panic").await;

        let mut service = layer.layer(service_fn(|_: Request<Body>| {
            defers();
            if true {
                panic!("on purpose, in `call`");
            }
            std::future::ready(Ok::<_, Infallible>(Response::new(Body::empty())))
        }));
        let call = std::panic::AssertUnwindSafe(|| drop(service.call(support::get("/"))));
        assert!(std::panic::catch_unwind(call).is_err());
        expect_no_response("a panic in `call`").await;
    }
}

mod isolation {
    use super::*;

    struct PanicsOnDrop;

    impl Drop for PanicsOnDrop {
        fn drop(&mut self) {
            if !thread::panicking() {
                panic!("on purpose, in a destructor");
            }
        }
    }

    #[tokio::test]
    async fn failed_callback_does_not_stop_the_next() {
        let steps = Steps::default();
        let layer = DeferLayer::new().observer(steps.clone());
        respond(&layer, async || {
            defer(async { Err::<(), _>(io::Error::other("disk full")) }).name("error");
            defer(async { panic!("plain") }).name("str");
            defer(async { panic!("of {}", 3) }).name("String");
            defer(async { std::panic::panic_any(42) }).name("any");
            defer(async { std::panic::panic_any(PanicsOnDrop) }).name("payload");
            defer(|| -> std::future::Ready<()> { panic!("making it") }).name("closure");
            defer_blocking(|| panic!("blocking")).name("blocking");
            defer_blocking(|| Err::<(), _>("refused")).name("blocking error");
            defer(async {}).name("last");
        })
        .await;
        assert_eq!(
            steps.take(),
            [
                "finished error: error: disk full",
                "finished str: panicked: plain",
                "finished String: panicked: of 3",
                "finished any: panicked: the panic payload is not a string",
                "finished payload: panicked: the panic payload is not a string",
                "finished closure: panicked: making it",
                "finished blocking: panicked: blocking",
                "finished blocking error: error: refused",
                "finished last: ok",
            ]
        );
    }

    #[tokio::test]
    async fn panicking_destructor_is_isolated() {
        let steps = Steps::default();
        let layer = DeferLayer::new().observer(steps.clone());
        respond(&layer, async || {
            let held = PanicsOnDrop;
            defer(std::future::poll_fn(move |_| {
                let _held = &held;
                Poll::Ready(())
            }))
            .name("ran");
            let held = PanicsOnDrop;
            defer(move || async move {
                let _held = held;
            })
            .name("while it ran");
            let held = PanicsOnDrop;
            defer(async move {
                let _held = &held;
            })
            .name("skipped")
            .when(|_| false);
            let held = PanicsOnDrop;
            assert!(defer(async move { drop(held) }).name("cancelled").cancel());
            let held = PanicsOnDrop;
            defer(async move { drop(held) }).name("replaced");
            defer(async {}).name("replaced");
            let held = PanicsOnDrop;
            let predicate = move |_: &Completion| {
                let _held = &held;
                true
            };
            defer(async {})
                .name("its predicate")
                .when(predicate)
                .always();
            defer(async { Err::<(), _>(DropsBadly(PanicsOnDrop)) }).name("its error");
            defer(async {}).name("last");
        })
        .await;
        assert_eq!(
            steps.take(),
            [
                "cancelled cancelled",
                "replaced replaced",
                "finished ran: ok",
                "finished while it ran: panicked: on purpose, in a destructor",
                "skipped skipped",
                "finished replaced: ok",
                "finished its predicate: ok",
                "finished its error: error: drops badly",
                "finished last: ok",
            ]
        );
    }

    struct DropsBadly(#[allow(dead_code)] PanicsOnDrop);

    impl fmt::Debug for DropsBadly {
        fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("DropsBadly")
        }
    }

    impl fmt::Display for DropsBadly {
        fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("drops badly")
        }
    }

    impl Error for DropsBadly {}
}

mod what_can_be_deferred {
    use super::*;

    async fn function() {}
    async fn fallible() -> Result<(), io::Error> {
        Ok(())
    }
    async fn of_the_outcome(completion: Completion) -> Result<(), Box<dyn Error + Send + Sync>> {
        assert!(completion.is_success());
        Err("refused".into())
    }

    #[tokio::test]
    async fn every_deferrable_form_is_accepted() {
        let steps = Steps::default();
        let layer = DeferLayer::new().observer(steps.clone());
        respond(&layer, async || {
            let text = String::from("captured");
            defer(async {}).name("block");
            defer(async { Ok::<_, io::Error>(()) }).name("fallible block");
            defer(async { Err::<(), _>("a str") }).name("str error");
            defer(async { Err::<(), _>(String::from("a String")) }).name("String error");
            defer(function()).name("call");
            defer(function).name("function");
            defer(fallible).name("fallible function");
            defer(of_the_outcome).name("function of the outcome");
            defer(|| async {}).name("closure");
            let copy = text.clone();
            defer(move || async move { drop(copy) }).name("closure that captures");
            defer(async move || drop(text)).name("async closure");
            defer(|_: Completion| async { Ok::<_, String>(()) }).name("closure of the outcome");
            defer(async |_: Completion| {}).name("async closure of the outcome");
            let boxed: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(async {});
            defer(boxed).name("boxed");
            defer_blocking(|| ()).name("blocking");
            defer_blocking(|completion: Completion| match completion.is_success() {
                true => Ok(()),
                false => Err(io::Error::other("failed")),
            })
            .name("blocking, of the outcome");
        })
        .await;
        let expected: Vec<String> = [
            ("block", "ok"),
            ("fallible block", "ok"),
            ("str error", "error: a str"),
            ("String error", "error: a String"),
            ("call", "ok"),
            ("function", "ok"),
            ("fallible function", "ok"),
            ("function of the outcome", "error: refused"),
            ("closure", "ok"),
            ("closure that captures", "ok"),
            ("async closure", "ok"),
            ("closure of the outcome", "ok"),
            ("async closure of the outcome", "ok"),
            ("boxed", "ok"),
            ("blocking", "ok"),
            ("blocking, of the outcome", "ok"),
        ]
        .map(|(name, outcome)| format!("finished {name}: {outcome}"))
        .into();
        assert_eq!(steps.take(), expected);
    }

    #[tokio::test]
    async fn skipped_closure_is_not_called() {
        let steps = Steps::default();
        respond(&DeferLayer::new(), async || {
            let called = steps.clone();
            defer(move || {
                called.note("called");
                async {}
            });
            FAILED
        })
        .await;
        assert_eq!(steps.take(), [""; 0]);
    }

    #[tokio::test]
    async fn blocking_callback_runs_on_other_thread() {
        let steps = Steps::default();
        respond(&DeferLayer::new(), async || {
            let runtime_thread = thread::current().id();
            defer(steps.on_run("before"));
            let inside = steps.clone();
            defer_blocking(move || {
                assert_ne!(thread::current().id(), runtime_thread);
                inside.note("blocking");
                defer(inside.on_run("deferred by it"));
            });
            defer(steps.on_run("after"));
        })
        .await;
        assert_eq!(
            steps.take(),
            ["before", "blocking", "after", "deferred by it"]
        );
    }
}

mod streaming {
    use super::*;

    #[tokio::test]
    async fn streaming_body_may_defer() {
        let steps = Steps::default();
        let in_body = steps.clone();
        let app: Router = Router::new()
            .route(
                "/",
                get(move || {
                    let steps = in_body.clone();
                    async move {
                        Body::from_stream(stream::unfold(0, move |chunk| {
                            let steps = steps.clone();
                            async move {
                                defer(steps.on_run("in a poll")).name("once");
                                steps.note(format!("chunk {chunk}"));
                                (chunk < 3).then(|| (Ok::<_, io::Error>("chunk"), chunk + 1))
                            }
                        }))
                    }
                }),
            )
            .layer(DeferLayer::new().observer(steps.clone()));
        let server = Server::start(app).await;
        for body in ["HTTP/1", "HTTP/2"] {
            let whole = if body == "HTTP/1" {
                let mut client = server.http1().await;
                let response = client.send_request(support::get("/")).await.unwrap();
                response.into_body().collect().await.unwrap().to_bytes()
            } else {
                let mut client = server.http2().await;
                let response = client.send_request(support::get("/")).await.unwrap();
                response.into_body().collect().await.unwrap().to_bytes()
            };
            assert_eq!(whole, "chunkchunkchunk");
            in_time(async {
                while !steps
                    .0
                    .lock()
                    .unwrap()
                    .iter()
                    .any(|step| step.starts_with("finished"))
                {
                    tokio::task::yield_now().await;
                }
            })
            .await;
            assert_eq!(
                steps.take(),
                [
                    "chunk 0",
                    "replaced once",
                    "chunk 1",
                    "replaced once",
                    "chunk 2",
                    "replaced once",
                    "chunk 3",
                    "in a poll",
                    "finished once: ok",
                ],
                "{body}"
            );
        }
    }

    #[tokio::test]
    async fn body_polled_past_its_length_may_defer() {
        assert_defers_behind_the_end([(header::CONTENT_LENGTH, "5")], vec![data()]).await;
        assert_defers_behind_the_end([(header::CONTENT_LENGTH, "0")], vec![]).await;
    }

    #[tokio::test]
    async fn body_polled_past_trailers_may_defer() {
        let trailers = Ok(Frame::trailers(http::HeaderMap::new()));
        assert_defers_behind_the_end([(header::ETAG, "a")], vec![data(), trailers]).await;
    }

    /// A layer outside that compresses reads a body to its very end, where hyper stops earlier.
    async fn assert_defers_behind_the_end(
        head: [(HeaderName, &'static str); 1],
        frames: Vec<Result<Frame<Bytes>, io::Error>>,
    ) {
        let steps = Steps::default();
        let frames = Mutex::new(Some(frames));
        respond(&DeferLayer::new(), async || {
            let frames = stream::iter(frames.lock().unwrap().take().unwrap());
            let steps = steps.clone();
            let end = stream::poll_fn(move |_| {
                defer(steps.on_run("behind the end"));
                Poll::Ready(None)
            });
            (head.clone(), Body::new(StreamBody::new(frames.chain(end))))
        })
        .await;
        assert_eq!(steps.take(), ["behind the end"]);
    }
}

mod exactly_once {
    use super::*;

    fn error() -> Result<Frame<Bytes>, io::Error> {
        Err(io::Error::other("on purpose"))
    }

    /// Whatever order the end of a body and a push through a kept handle come in.
    #[tokio::test]
    async fn any_sequence_of_polls_fires_once() {
        type Script = fn() -> Vec<Result<Frame<Bytes>, io::Error>>;
        let bodies: [(Script, usize, Delivery); 8] = [
            (|| vec![], 0, Aborted),
            (|| vec![], 2, Complete),
            (|| vec![data()], 0, Aborted),
            (|| vec![data()], 1, Aborted),
            (|| vec![data()], 3, Complete),
            (|| vec![data(), error(), error()], 2, BodyError),
            (|| vec![data(), error(), error()], 4, BodyError),
            (|| vec![error()], 2, BodyError),
        ];
        for (index, (body, polls, delivery)) in bodies.into_iter().enumerate() {
            // A push before the first poll, after each, and after the drop, in every combination.
            for pushes in 0..1_u32 << (polls + 2) {
                let (log, mut events) = Log::new();
                let layer = DeferLayer::new().observer(log.clone());
                let callbacks = Mutex::new(None);
                let mut response = reply(&layer, async || {
                    *callbacks.lock().unwrap() = DeferredCallbackCollection::current();
                    log.defer("first").always();
                    frames(body())
                })
                .await;
                let callbacks = callbacks.into_inner().unwrap().unwrap();
                let push = |step: usize| {
                    if pushes & (1 << step) != 0 {
                        let log = log.clone();
                        callbacks
                            .defer(move |completion: Completion| async move {
                                log.ran("pushed", completion);
                            })
                            .always();
                    }
                };
                push(0);
                for step in 1..=polls {
                    let _ = response.body_mut().frame().now_or_never();
                    tokio::task::yield_now().await;
                    push(step);
                }
                drop(response);
                push(polls + 1);
                in_time(layer.handle().wait_idle()).await;
                let events = events.so_far();
                assert_eq!(events.len(), 1 + pushes.count_ones() as usize);
                for (name, what) in &events {
                    assert!(matches!(what, What::Ran(_)), "{name}: {what:?}");
                    assert_eq!(what.completion(), events[0].1.completion());
                    assert_eq!(what.completion().delivery(), delivery, "body {index}");
                }
            }
        }
    }

    /// The same from several threads at once.
    #[test]
    fn end_push_and_cancel_race_runs_once() {
        const ROUNDS: usize = 500;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let steps = Arc::new(AtomicUsize::new(0));
        for round in 0..ROUNDS {
            let layer = DeferLayer::new();
            let ran = Arc::new(AtomicUsize::new(0));
            let count = || {
                let ran = ran.clone();
                move |completion: Completion| async move {
                    ran.fetch_add(1, SeqCst);
                    completion
                }
            };
            let (completions, mut seen) = mpsc::unbounded_channel();
            let tell = || {
                let (count, completions) = (count(), completions.clone());
                move |completion: Completion| async move {
                    completions.send(count(completion).await).unwrap();
                }
            };
            let callbacks = Mutex::new(None);
            let handle = Mutex::new(None);
            let mut response = runtime.block_on(reply(&layer, async || {
                *callbacks.lock().unwrap() = DeferredCallbackCollection::current();
                defer(tell()).always();
                *handle.lock().unwrap() = Some(defer(tell()).always());
                frames([data()])
            }));
            let callbacks = callbacks.into_inner().unwrap().unwrap();
            let handle = handle.into_inner().unwrap().unwrap();
            let start = Barrier::new(3);
            let cancelled = thread::scope(|threads| {
                threads.spawn(|| {
                    let _entered = runtime.enter();
                    start.wait();
                    // To the end, to the middle, or not at all.
                    for _ in 0..round % 3 {
                        let _ = response.body_mut().frame().now_or_never();
                    }
                    drop(response);
                });
                threads.spawn(|| {
                    start.wait();
                    callbacks.defer(tell()).always();
                    callbacks.defer(tell()).always();
                });
                threads
                    .spawn(|| {
                        start.wait();
                        handle.cancel()
                    })
                    .join()
                    .unwrap()
            });
            runtime.block_on(in_time(layer.handle().wait_idle()));
            drop(handle);
            let expected = 4 - usize::from(cancelled);
            assert_eq!(ran.load(SeqCst), expected, "round {round}");
            let first = seen.try_recv().unwrap();
            for _ in 1..expected {
                assert_eq!(seen.try_recv().unwrap(), first, "round {round}");
            }
            steps.fetch_add(expected, SeqCst);
        }
        assert!(steps.load(SeqCst) >= 3 * ROUNDS);
    }
}

mod units_of_work {
    use super::*;

    async fn log_of<T: axum_defer::ScopeOutput>(output: T) -> Vec<(String, What)> {
        let (log, mut events) = Log::new();
        DeferLayer::new()
            .observer(log.clone())
            .scope(async {
                log.defer("default");
                log.defer("always").always();
                output
            })
            .await;
        // They have run when `scope` returns: nothing is waited for here.
        events.so_far()
    }

    #[tokio::test]
    async fn scope_output_decides() {
        let cases = [
            ("()", true, log_of(()).await),
            ("Ok", true, log_of(Ok::<_, io::Error>(7)).await),
            ("Err", false, log_of(Err::<i32, _>("no")).await),
            ("ExitCode 0", true, log_of(ExitCode::SUCCESS).await),
            ("ExitCode 1", false, log_of(ExitCode::FAILURE).await),
            ("ExitCode 3", false, log_of(ExitCode::from(3)).await),
        ];
        for (case, success, events) in cases {
            let [(default, judged), (always, ran)] = &events[..] else {
                panic!("{case}: {events:?}");
            };
            assert_eq!((default.as_str(), always.as_str()), ("default", "always"));
            assert_eq!(matches!(judged, What::Ran(_)), success, "{case}");
            assert!(matches!(ran, What::Ran(_)), "{case}");
            let completion = ran.completion();
            assert_eq!(completion.is_success(), success, "{case}");
            assert!(completion.is_complete(), "{case}");
            assert_eq!(completion.level(), Level::HandedOff, "{case}");
            assert_eq!((completion.status(), completion.body_bytes()), (None, 0));
        }
    }

    #[tokio::test]
    async fn scope_returns_after_its_callbacks() {
        let steps = Steps::default();
        let output = scope(async {
            let inside = steps.clone();
            defer(async move {
                tokio::task::yield_now().await;
                inside.note("callback");
                defer(inside.on_run("nested"));
            });
            Ok::<_, io::Error>("output")
        })
        .await;
        steps.note(output.unwrap());
        assert_eq!(steps.take(), ["callback", "nested", "output"]);
    }

    #[tokio::test]
    async fn dropped_scope_runs_always() {
        let (log, mut events) = Log::new();
        let layer = DeferLayer::new().observer(log.clone());
        for panics in [false, true] {
            let unit = Box::pin(layer.scope(async {
                log.defer("default");
                log.defer("always").always();
                if panics {
                    panic!("on purpose");
                }
                std::future::pending::<()>().await;
            }));
            if panics {
                assert!(
                    std::panic::AssertUnwindSafe(unit)
                        .catch_unwind()
                        .await
                        .is_err()
                );
            } else {
                assert!(unit.now_or_never().is_none());
            }
            let (name, what) = events.next().await;
            assert!(name == "default" && matches!(what, What::Skipped(_)));
            let (name, what) = events.next().await;
            assert!(name == "always" && matches!(what, What::Ran(_)));
            assert_eq!(what.completion().delivery(), NoResponse);
        }
    }

    #[tokio::test]
    async fn scope_dropped_in_callback_loses_it_alone() {
        let steps = Steps::default();
        let layer = DeferLayer::new().observer(steps.clone());
        let unit = Box::pin(layer.scope(async {
            defer(std::future::pending::<()>()).name("cut off");
            defer(async {}).name("rest");
        }));
        assert!(unit.now_or_never().is_none());
        in_time(layer.handle().wait_idle()).await;
        assert_eq!(
            steps.take(),
            [
                "lost cut off: it was interrupted while it was running",
                "finished rest: ok"
            ]
        );
    }

    #[tokio::test]
    async fn nested_scope_is_separate() {
        let steps = Steps::default();
        respond(&DeferLayer::new(), async || {
            defer(steps.on_run("of the request"));
            scope(async {
                defer(steps.on_run("of the scope"));
                scope(async { defer(steps.on_run("of the scope in it")) }.map(drop)).await;
            })
            .await;
            steps.note("handler");
        })
        .await;
        assert_eq!(
            steps.take(),
            [
                "of the scope in it",
                "of the scope",
                "handler",
                "of the request"
            ]
        );
    }
}

mod without_a_layer {
    use super::*;

    /// The message and the place of the panic in `code`.
    fn panic_of(code: impl FnOnce()) -> (String, String, u32) {
        type Panics = Mutex<Vec<(thread::ThreadId, String, u32)>>;
        static PANICS: Panics = Mutex::new(Vec::new());
        static HOOK: std::sync::Once = std::sync::Once::new();
        HOOK.call_once(|| {
            let next = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |info| {
                let place = info.location().unwrap();
                let (file, line) = (place.file().to_owned(), place.line());
                PANICS
                    .lock()
                    .unwrap()
                    .push((thread::current().id(), file, line));
                next(info);
            }));
        });
        let payload = std::panic::catch_unwind(std::panic::AssertUnwindSafe(code)).unwrap_err();
        let panics = PANICS.lock().unwrap();
        let own = panics
            .iter()
            .rfind(|(thread, ..)| *thread == thread::current().id());
        let (_, file, line) = own.unwrap().clone();
        (
            payload.downcast_ref::<String>().unwrap().clone(),
            file,
            line,
        )
    }

    #[test]
    fn defer_without_scope_panics_at_caller() {
        let (message, file, line) = panic_of(|| drop(defer(async {})));
        assert!(message.contains("DeferLayer"), "{message}");
        assert!(message.contains("after the routes"), "{message}");
        assert_eq!((file.as_str(), line), (file!(), line!() - 3));

        let (message, file, line) = panic_of(|| drop(defer_blocking(|| ())));
        assert!(message.contains("DeferLayer"), "{message}");
        assert_eq!((file.as_str(), line), (file!(), line!() - 2));
    }

    /// What the docs of `defer` say under "Panics".
    #[tokio::test]
    async fn uncaught_panic_sends_no_response() {
        let routes = || {
            let defers = async || drop(defer(async {}));
            Router::<()>::new().route("/", get(defers))
        };
        for (app, status) in [
            (routes(), None),
            (routes().layer(CatchPanicLayer::new()), Some(500)),
        ] {
            let server = Server::start(app).await;
            let mut client = server.raw().await;
            client.get("/").await;
            let response = client.response(false).await;
            assert_eq!(response.map(|response| response.status), status);
        }
    }

    #[test]
    fn try_defer_returns_the_callback() {
        let refused = try_defer(std::future::ready(())).unwrap_err();
        assert!(refused.to_string().contains("DeferLayer"));
        let callback = refused.into_callback();
        assert_eq!(callback.into_inner(), ());
    }

    /// What the docs of `defer` say of where the scope is.
    #[tokio::test]
    async fn scope_does_not_reach_other_tasks() {
        fn is_here() -> bool {
            try_defer(async {}).is_ok()
        }
        let found = Arc::new(Mutex::new(Vec::new()));
        let handler = || {
            let found = found.clone();
            async move {
                let both = tokio::join!(async { is_here() }, async { is_here() });
                let task = tokio::spawn(async { is_here() }).await.unwrap();
                let pool = tokio::task::spawn_blocking(is_here).await.unwrap();
                let thread = thread::spawn(is_here).join().unwrap();
                let afterwards = is_here();
                let (told, blocking) = oneshot::channel();
                defer_blocking(move || told.send(is_here()).unwrap());
                defer(async move {
                    let of_blocking = blocking.await.unwrap();
                    found.lock().unwrap().extend([
                        both.0,
                        both.1,
                        afterwards,
                        of_blocking,
                        is_here(),
                    ]);
                    found.lock().unwrap().extend([task, pool, thread]);
                });
            }
        };
        let layer = DeferLayer::new();
        respond_later(&layer, handler).await;
        in_time(layer.handle().wait_idle()).await;
        let expected = [true, true, true, true, true, false, false, false];
        assert_eq!(*found.lock().unwrap(), expected);
    }

    #[tokio::test]
    async fn try_defer_registers_inside_a_scope() {
        let steps = Steps::default();
        respond(&DeferLayer::new(), async || {
            drop(try_defer(steps.on_run("tried")).unwrap().name("tried"));
        })
        .await;
        assert_eq!(steps.take(), ["tried"]);
    }

    #[cfg(feature = "axum")]
    #[tokio::test]
    async fn extractor_without_layer_returns_500() {
        let routes = || -> Router {
            Router::new()
                .route("/", get(async |_: DeferredCallbackCollection| "extracted"))
                .route(
                    "/optional",
                    get(
                        async |callbacks: Option<DeferredCallbackCollection>| {
                            if callbacks.is_some() { "some" } else { "none" }
                        },
                    ),
                )
        };
        for (app, root, optional) in [
            (routes(), None, "none"),
            (routes().layer(DeferLayer::new()), Some("extracted"), "some"),
        ] {
            let server = Server::start(app).await;
            let mut client = server.raw().await;
            client.get("/").await;
            let response = client.response(false).await.unwrap();
            let body = String::from_utf8(response.body).unwrap();
            match root {
                Some(text) => assert_eq!((response.status, body.as_str()), (200, text)),
                None => assert!(
                    response.status == 500
                        && body.contains(".layer(axum_defer::DeferLayer::new())")
                ),
            }
            client.get("/optional").await;
            let response = client.response(false).await.unwrap();
            assert_eq!(response.body, optional.as_bytes());
        }
    }
}

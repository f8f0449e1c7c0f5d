//! The options of a layer.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use http::{Extensions, StatusCode};
use tokio::sync::Semaphore;
use tower_http::classify::MakeClassifier;

use super::DeferLayer;
#[cfg(feature = "tracing")]
use crate::observe::callback_info::CallbackInfo;
use crate::{
    callback::{output::CallbackResult, wrap::CallbackFuture},
    completion::Completion,
    observe::observer::DeferObserver,
    response::classify::Classification,
    scope::{max_pending::PermitPool, options::Options},
};

impl DeferLayer {
    /// Sets the classifier that distinguishes success from failure: one of tower-http, or your own.
    ///
    /// ```
    /// use axum_defer::DeferLayer;
    /// use tower_http::classify::ServerErrorsAsFailures;
    ///
    /// // A 404 is a success here.
    /// let layer = DeferLayer::new().classifier(ServerErrorsAsFailures::make_classifier());
    /// # let _ = layer;
    /// ```
    #[must_use]
    pub fn classifier<M>(self, make_classifier: M) -> Self
    where
        M: MakeClassifier<Classifier: Send + Sync + 'static, ClassifyEos: Send + Sync + 'static>
            + Send
            + Sync
            + 'static,
    {
        self.set(|options| options.classification = Classification::custom(make_classifier))
    }

    /// Sets the rule for callbacks that have no rule of their own.
    ///
    /// It does not apply to callbacks [before the response](crate::before_response).
    ///
    /// ```
    /// use axum_defer::DeferLayer;
    ///
    /// let only_if_complete = DeferLayer::new().when(|completion| {
    ///     completion.is_success() && completion.is_complete()
    /// });
    /// # let _ = only_if_complete;
    /// ```
    #[must_use]
    pub fn when<F>(self, rule: F) -> Self
    where
        F: Fn(&Completion) -> bool + Send + Sync + 'static,
    {
        self.set(|options| options.rule = Some(Arc::new(rule)))
    }

    /// Runs the callbacks of a scope concurrently on one task, instead of one after the other.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// use axum_defer::{DeferLayer, defer};
    ///
    /// let (sender, receiver) = tokio::sync::oneshot::channel();
    /// DeferLayer::new()
    ///     .concurrent()
    ///     .scope(async {
    ///         // One after the other, the first would wait forever.
    ///         defer(async { receiver.await.map(drop) });
    ///         defer(async { sender.send(()).unwrap() });
    ///     })
    ///     .await;
    /// # }
    /// ```
    #[must_use]
    pub fn concurrent(self) -> Self {
        self.set(|options| options.concurrent = true)
    }

    /// Ends each callback that has run for this long. See
    /// [`DeferredCallback::timeout`](crate::DeferredCallback::timeout).
    ///
    /// There is no limit by default.
    ///
    #[cfg_attr(feature = "testing", doc = "```")]
    #[cfg_attr(not(feature = "testing"), doc = "```ignore")]
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// use std::time::Duration;
    /// use axum_defer::{DeferLayer, defer, testing::Recorder};
    ///
    /// let recorder = Recorder::new();
    /// DeferLayer::new()
    ///     .timeout(Duration::from_millis(5))
    ///     .observer(recorder.clone())
    ///     .scope(async {
    ///         defer(std::future::pending::<()>()).name("hangs");
    ///         defer(async {}).name("mail");
    ///     })
    ///     .await;
    /// recorder.assert_failed(["hangs"]);
    /// recorder.assert_succeeded(["mail"]);
    /// # }
    /// ```
    #[must_use]
    pub fn timeout(self, limit: Duration) -> Self {
        self.set(|options| options.timeout = Some(limit))
    }

    /// Runs the callbacks of at most `scopes` scopes at once, across all clones of the layer. The
    /// others wait in the order in which their responses ended.
    ///
    /// A [`scope`](Self::scope) of the same layer inside a callback shares the permit of that
    /// callback, because it would wait for itself otherwise. A scope in a handler needs a permit of
    /// its own. A callback that waits until its name is free
    /// ([`coalesce`](crate::DeferredCallback::coalesce)) holds no permit.
    ///
    /// A callback that sends a request to its own server and waits for callbacks of that request can
    /// wait forever at the limit. The layer cannot detect this.
    ///
    /// # Panics
    ///
    /// Panics if `scopes` is 0 or above [`Semaphore::MAX_PERMITS`].
    ///
    /// ```
    /// use axum_defer::DeferLayer;
    ///
    /// // Callbacks share a pool of 20 connections with handlers.
    /// let layer = DeferLayer::new().max_concurrency(10);
    /// # let _ = layer;
    /// ```
    #[must_use]
    pub fn max_concurrency(self, scopes: usize) -> Self {
        assert!(
            scopes > 0,
            "with `max_concurrency(0)` no callback would ever run"
        );
        self.set(|options| options.permits = Some(Arc::new(Semaphore::new(scopes))))
    }

    /// Makes requests wait while `callbacks` callbacks or more are pending or running.
    ///
    /// The service is not [ready](tower_service::Service::poll_ready) then, so an axum router
    /// holds the request, and `tower::load_shed` around this layer returns an error at once: in the
    /// same `ServiceBuilder`, as below. A router is always ready, so one call of `Router::layer` does
    /// not see another one. Callbacks of requests that have entered are never refused.
    ///
    /// A request that enters takes one permit, until it defers something or its response has ended.
    /// So at most this many callbacks are pending, plus what each request in flight defers beyond its
    /// first callback. A clone of the service that is ready has its permit already, and releases it
    /// when it is dropped. A freed permit wakes one waiting request.
    ///
    /// A callback that sends a request to its own server can wait forever at the limit: its request
    /// waits for a permit, and it holds one. The layer cannot detect this.
    ///
    /// # Panics
    ///
    /// Panics if `callbacks` is 0.
    ///
    /// ```
    /// use axum::{Router, error_handling::HandleErrorLayer, http::StatusCode, routing::get};
    /// use axum_defer::DeferLayer;
    /// use tower::{BoxError, ServiceBuilder};
    ///
    /// let app: Router = Router::new().route("/", get(|| async { "hello" })).layer(
    ///     ServiceBuilder::new()
    ///         .layer(HandleErrorLayer::new(|_: BoxError| async {
    ///             StatusCode::SERVICE_UNAVAILABLE
    ///         }))
    ///         .load_shed()
    ///         .layer(DeferLayer::new().max_pending(10_000)),
    /// );
    /// ```
    #[must_use]
    pub fn max_pending(self, callbacks: usize) -> Self {
        assert!(
            callbacks > 0,
            "with `max_pending(0)` no request would ever enter"
        );
        self.set(|options| options.max_pending = Some(Arc::new(PermitPool::new(callbacks))))
    }

    /// Sets the status of a response if a callback before it fails; 503 by default.
    ///
    /// See [`before_response`](crate::before_response). With [`new_for_grpc`](Self::new_for_grpc),
    /// the default is a 200 with grpc-status 14. This status replaces both.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// use axum::{Router, body::Body, extract::Request, http::StatusCode, routing::get};
    /// use axum_defer::{DeferLayer, before_response};
    /// use tower::ServiceExt;
    ///
    /// let app: Router = Router::new()
    ///     .route("/", get(|| async { before_response(async { Err("no queue") }); }))
    ///     .layer(DeferLayer::new().before_response_failure_status(StatusCode::BAD_GATEWAY));
    /// let response = app.oneshot(Request::new(Body::empty())).await.unwrap();
    /// assert_eq!(response.status(), StatusCode::BAD_GATEWAY);
    /// # }
    /// ```
    #[must_use]
    pub fn before_response_failure_status(self, status: StatusCode) -> Self {
        self.set(|options| options.failure = Some(status))
    }

    /// Adds an observer. Several observers are called in the order in which they were added.
    ///
    /// ```
    /// use axum_defer::{CallbackInfo, DeferLayer, DeferObserver, LostReason};
    ///
    /// struct Alarm;
    ///
    /// impl DeferObserver for Alarm {
    ///     fn lost(&self, callback: &CallbackInfo<'_>, reason: LostReason) {
    ///         eprintln!("{callback} was lost: {reason}");
    ///     }
    /// }
    ///
    /// let layer = DeferLayer::new().observer(Alarm);
    /// # let _ = layer;
    /// ```
    #[must_use]
    pub fn observer(self, observer: impl DeferObserver) -> Self {
        self.set(|options| options.observers.push(observer))
    }

    /// Sets the function that creates the span of each callback (feature `tracing`).
    ///
    /// [`defer`](crate::defer) calls `make` on the task of the request, if a subscriber records spans
    /// at `INFO` or below. The span follows from the current one. Give it `parent: None`; otherwise it
    /// extends the span of the request. Its field `callback` is filled in with the name, if it declares
    /// it. The callback has no name yet when `make` is called. A panic in `make` is a panic of `defer`.
    ///
    /// The default is a span `deferred` with the fields `callback` (the name), `method`, `path` (the
    /// route of axum if there is one), and `request_id` (the header `x-request-id`). Its level is `INFO`
    /// if the span that is current at the registration is enabled, and `DEBUG` otherwise.
    ///
    /// ```
    /// use axum_defer::DeferLayer;
    /// use tracing::{field::Empty, info_span};
    ///
    /// let layer = DeferLayer::new().span(|callback| {
    ///     let route = callback.request().and_then(|request| request.route());
    ///     info_span!(parent: None, "after", route, callback = Empty)
    /// });
    /// # let _ = layer;
    /// ```
    #[cfg(feature = "tracing")]
    #[must_use]
    pub fn span<F>(self, make: F) -> Self
    where
        F: Fn(&CallbackInfo<'_>) -> tracing::Span + Send + Sync + 'static,
    {
        self.set(|options| options.observers.make_span = Some(Arc::new(make)))
    }

    /// Logs the first callback of each call site that a failed response skips at the level `WARN`
    /// (feature `tracing`). On by default.
    ///
    /// A callback that must also run after failures needs [`always`](crate::DeferredCallback::always). Without
    /// this warning it is easily lost when `tokio::spawn` is replaced. All other skips are logged at
    /// `DEBUG`.
    ///
    /// ```
    /// use axum_defer::DeferLayer;
    ///
    /// let layer = DeferLayer::new().warn_on_skip(false);
    /// # let _ = layer;
    /// ```
    #[cfg(feature = "tracing")]
    #[must_use]
    pub fn warn_on_skip(self, warn: bool) -> Self {
        use crate::observe::tracing::FirstSkips;
        self.set(|options| {
            options.observers.skips = match warn {
                true => FirstSkips::default(),
                false => FirstSkips::off(),
            }
        })
    }

    /// Adds a label for the name of the callback to metrics (feature `metrics`).
    ///
    /// The counter and both histograms get the label `name`. Callbacks without a name are `unnamed`.
    /// Each name is a time series, so use this only for layers whose names are few and fixed, and
    /// never with names that contain ids.
    ///
    /// ```
    /// use axum_defer::{DeferLayer, defer};
    ///
    /// let layer = DeferLayer::new().metrics_by_name();
    /// # let _ = layer;
    /// # async fn handler() {
    /// defer(async {}).name("welcome mail");  // not format!("mail to {user}")
    /// # }
    /// ```
    #[cfg(feature = "metrics")]
    #[must_use]
    pub fn metrics_by_name(self) -> Self {
        self.set(|options| options.observers.metrics_by_name = true)
    }

    /// Wraps the future of every callback.
    ///
    /// Callbacks run on a task of their own, without the task-locals and the span of the request.
    /// [`defer`](crate::defer) calls `wrap` on the task of the request before it registers the
    /// callback, so `wrap` can read these values and carry them over. If a streaming body calls
    /// `defer`, the task-locals of the handler are not set. For blocking callbacks, `wrap` gets the
    /// future that awaits the blocking thread; task-locals do not reach that thread. A panic in `wrap`
    /// is a panic of `defer`.
    ///
    /// Time spent waiting inside `wrap` counts as run time, and toward the timeout.
    ///
    /// ```
    /// use axum_defer::DeferLayer;
    ///
    /// tokio::task_local! {
    ///     static TENANT: String;
    /// }
    ///
    /// let layer = DeferLayer::new().wrap(|callback| {
    ///     let tenant = TENANT.try_with(String::clone).unwrap_or_default();
    ///     TENANT.scope(tenant, callback)
    /// });
    /// # let _ = layer;
    /// ```
    #[must_use]
    pub fn wrap<W, F>(self, wrap: W) -> Self
    where
        W: Fn(CallbackFuture) -> F + Send + Sync + 'static,
        F: Future<Output = CallbackResult> + Send + 'static,
    {
        self.set(|options| {
            options.wrap = Some(Arc::new(move |future| CallbackFuture::new(wrap(future))));
        })
    }

    /// Drives each handler to its end, even if the client disconnects before the response.
    ///
    /// By default, a server drops the handler of a client that has left at its current `.await`, and
    /// only callbacks that are [`always`](crate::DeferredCallback::always) run. With this option, the
    /// inner services run on a task of their own. The status of the response decides which
    /// callbacks run, and their completion has the [`Delivery`](crate::Delivery) that occurred.
    ///
    /// [`DeferHandle::wait_idle`](crate::DeferHandle::wait_idle) and drains wait for the task. A panic
    /// in the handler reaches the outer layers as usual, and upgrades work. A handler that reads the
    /// request body of a client that has left gets the usual error. Task-locals of outer layers are
    /// not set inside. If the runtime ends before the handler does, the response is a 503.
    ///
    /// It costs a task per request, so add it to the routes that need it. Outer limits on requests in
    /// flight do not count handlers whose client has disconnected; put such limits inside.
    ///
    /// # Panics
    ///
    /// The service panics outside a Tokio runtime.
    ///
    /// ```
    /// use axum::{Router, routing::post};
    /// use axum_defer::{DeferLayer, defer};
    ///
    /// async fn place_order() -> &'static str {
    ///     // Both of these happen or return an error, even if the phone loses its network.
    ///     // reserve().await; charge().await;
    ///     defer(async { /* mail the receipt */ });
    ///     "thank you"
    /// }
    ///
    /// let app: Router = Router::new().route(
    ///     "/orders",
    ///     post(place_order).layer(DeferLayer::new().run_to_completion()),
    /// );
    /// ```
    #[must_use]
    pub fn run_to_completion(self) -> Self {
        self.set(|options| options.to_completion = true)
    }

    /// Drives each response body to its end, even if the client disconnects before it has all of it. Enables
    /// [`run_to_completion`](Self::run_to_completion).
    ///
    /// For streams whose work is paid for, or recorded at their end. While the client reads, nothing
    /// changes: the body is polled at the client's pace. If the client disconnects, or its connection is
    /// closed because it takes nothing, a task polls the rest of the body and discards the frames, for
    /// at most `limit`. [`Duration::MAX`] is no limit.
    ///
    /// The completion is decided when the body ends or the limit is reached. The delivery is
    /// [`Aborted`](crate::Delivery::Aborted) in both cases, and
    /// [`Completion::is_body_finished`](crate::Completion::is_body_finished) distinguishes them.
    /// [`Completion::body_bytes`](crate::Completion::body_bytes) does not count discarded frames.
    /// Drains and [`DeferHandle::wait_idle`](crate::DeferHandle::wait_idle) wait for the task, and report
    /// it as a running handler.
    ///
    /// An outer layer that replaces the response, for example a timeout, drops the body, too. Each body
    /// is boxed. A limit needs Tokio's time driver: without one, the body ends with its client.
    ///
    /// ```
    /// use std::time::Duration;
    /// use axum::{Router, routing::post};
    /// use axum_defer::{Completion, DeferLayer, defer};
    ///
    /// async fn answer() {
    ///     defer(|completion: Completion| async move {
    ///         match completion.is_body_finished() {
    ///             true => println!("store the answer"),
    ///             false => println!("the answer is incomplete"),
    ///         }
    ///     });
    ///     // The response streams the tokens of a model.
    /// }
    ///
    /// let app: Router = Router::new().route(
    ///     "/answers",
    ///     post(answer).layer(DeferLayer::new().finish_body(Duration::from_secs(120))),
    /// );
    /// ```
    #[must_use]
    pub fn finish_body(self, limit: Duration) -> Self {
        self.set(|options| {
            options.to_completion = true;
            options.finish_body = Some(limit);
        })
    }

    /// Reports to a platform how long each request needs the process after its response.
    ///
    /// For platforms that freeze or end a process after the response: AWS Lambda, Vercel, Cloudflare
    /// Workers. [Platforms](crate::guide::platforms) has an example for each.
    ///
    /// `hook` is called once per request, with the extensions of the request and a future. The future
    /// is ready when all callbacks of the request have ended and nothing can be deferred anymore: the
    /// response has ended, and no [`DeferredCallbackCollection`](crate::DeferredCallbackCollection) of
    /// the request is held by a task. Callbacks run even if the future is not polled.
    ///
    /// `hook` is called on the task that drives the request when the handler has returned a response:
    /// before the response is returned, before any callback runs, and before [callbacks before the
    /// response](crate::before_response). If there is no response, it is called then. It must not
    /// wait for the future itself, because the response would wait for it. A panic in `hook` is caught.
    ///
    /// `hook` is not called for a [`scope`](Self::scope), because its caller awaits it. A second call
    /// of this method replaces the hook.
    ///
    /// ```
    /// use axum_defer::DeferLayer;
    ///
    /// /// The platform's extension of each request.
    /// #[derive(Clone)]
    /// struct Invocation(tokio::sync::mpsc::UnboundedSender<tokio::task::JoinHandle<()>>);
    ///
    /// let layer = DeferLayer::new().wait_until(|extensions, idle| {
    ///     if let Some(Invocation(tasks)) = extensions.get() {
    ///         let _ = tasks.send(tokio::spawn(idle));
    ///     }
    /// });
    /// # let _ = layer;
    /// ```
    #[must_use]
    pub fn wait_until<F>(self, hook: F) -> Self
    where
        F: Fn(&Extensions, Pin<Box<dyn Future<Output = ()> + Send>>) + Send + Sync + 'static,
    {
        self.set(|options| options.wait_until = Some(Arc::new(hook)))
    }

    /// Spawns tasks on something else than a Tokio runtime, for example Cloudflare Workers.
    ///
    /// `spawn` is called with one task for each scope that has callbacks to run, and with one for
    /// callbacks [before the response](crate::before_response). It is called wherever a response ends,
    /// even in a destructor, and must return at once. If it drops a task or panics, the callbacks of
    /// that task are reported as lost, and a response that waits for them becomes a 503.
    ///
    /// [`defer_blocking`](crate::defer_blocking), [`run_to_completion`](Self::run_to_completion), and
    /// timeouts still need a Tokio runtime. A callback with a [timeout](Self::timeout) fails if there is
    /// no timer.
    ///
    /// ```
    /// use axum_defer::{DeferLayer, DeferredCallbackCollection, defer};
    ///
    /// let (tasks, queue) = std::sync::mpsc::channel();
    /// let layer = DeferLayer::new().spawn_with(move |task| {
    ///     let _ = tasks.send(task);
    /// });
    ///
    /// let mut kept = None;
    /// futures_util::FutureExt::now_or_never(layer.scope(async {
    ///     kept = DeferredCallbackCollection::current();
    /// }));
    /// // The scope has ended, so this callback needs a task.
    /// kept.unwrap().defer(async { println!("on this thread, without a runtime") });
    /// let task = queue.recv().unwrap();
    /// assert!(futures_util::FutureExt::now_or_never(task).is_some());
    /// ```
    #[must_use]
    pub fn spawn_with<F>(self, spawn: F) -> Self
    where
        F: Fn(Pin<Box<dyn Future<Output = ()> + Send>>) + Send + Sync + 'static,
    {
        self.set(|options| options.spawn = Some(Arc::new(spawn)))
    }

    /// Runs callbacks before the response is returned, for tests. See [`testing`](crate::testing).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// use axum::{Router, body::Body, extract::Request, routing::get};
    /// use axum_defer::{DeferLayer, defer, testing::Recorder};
    /// use tower::ServiceExt;
    ///
    /// let recorder = Recorder::new();
    /// let app: Router = Router::new()
    ///     .route("/", get(|| async { defer(async {}).name("mail"); "hello" }))
    ///     .layer(DeferLayer::new().inline().observer(recorder.clone()));
    ///
    /// app.oneshot(Request::new(Body::empty())).await.unwrap();
    /// recorder.assert_succeeded(["mail"]);
    /// # }
    /// ```
    #[cfg(feature = "testing")]
    #[must_use]
    pub fn inline(self) -> Self {
        self.set(|options| options.inline = true)
    }

    fn set(self, set: impl FnOnce(&mut Options)) -> Self {
        let mut options = Options::clone(&self.options);
        set(&mut options);
        Self {
            options: Arc::new(options),
        }
    }
}

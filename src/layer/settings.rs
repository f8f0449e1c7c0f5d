//! What can be set on a layer.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use http::{Extensions, StatusCode};
use tokio::sync::Semaphore;
use tower_http::classify::MakeClassifier;

use super::DeferLayer;
#[cfg(feature = "tracing")]
use crate::observe::callback_info::CallbackInfo;
use crate::{
    callback::{callback_future::CallbackFuture, output::CallbackEnd},
    completion::Completion,
    observe::observer::DeferObserver,
    response::classify::Classification,
    scope::{options::Options, shared_options::SharedOptions},
};

impl DeferLayer {
    /// Tells success from failure with one of tower-http's classifiers, or one of your own.
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

    /// Which completions callbacks run for, unless a callback has a rule of its own.
    ///
    /// ```
    /// use axum_defer::DeferLayer;
    ///
    /// let only_if_delivered = DeferLayer::new().when(|completion| {
    ///     completion.is_success() && completion.is_delivered()
    /// });
    /// # let _ = only_if_delivered;
    /// ```
    #[must_use]
    pub fn when<F>(self, rule: F) -> Self
    where
        F: Fn(&Completion) -> bool + Send + Sync + 'static,
    {
        self.set(|options| options.rule = Some(Arc::new(rule)))
    }

    /// Runs the callbacks of a scope side by side, on one task, instead of one after the other.
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
    ///         // One after the other, the first would wait for ever.
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

    /// Ends each callback that has run for this long; see
    /// [`DeferredCallback::timeout`](crate::DeferredCallback::timeout).
    ///
    /// There is no limit by default.
    ///
    /// ```
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
    /// recorder.assert_ran(["mail"]);
    /// # }
    /// ```
    #[must_use]
    pub fn timeout(self, limit: Duration) -> Self {
        self.set(|options| options.timeout = Some(limit))
    }

    /// Runs the callbacks of at most `scopes` scopes at once, across all clones of the layer; the
    /// others wait in the order in which their responses ended.
    ///
    /// A [`scope`](Self::scope) of the same layer inside of a callback takes no second place: it
    /// would wait for the callback that waits for it. One in a handler takes a place of its own.
    ///
    /// # Panics
    ///
    /// If `scopes` is 0 or above [`Semaphore::MAX_PERMITS`].
    ///
    /// ```
    /// use axum_defer::DeferLayer;
    ///
    /// // Callbacks use a pool of 20 connections, of which handlers have the other half.
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

    /// Lets requests wait while `callbacks` callbacks, or more, are registered or running.
    ///
    /// The service is not [ready](tower_service::Service::poll_ready) then, so an axum router
    /// holds the request, and `tower::load_shed` around this layer answers 503 at once: in the
    /// same `ServiceBuilder`, as below. A router is always ready, so over two calls of
    /// `Router::layer` the one does not see the other. What
    /// requests that are inside already defer is never refused.
    ///
    /// A request that is let in takes one place, until it defers something or its response is
    /// over. So at most this many callbacks are pending, and on top of that what each of the
    /// requests in flight defers beyond its first: memory is bounded whatever handlers do. A clone
    /// of the service that is ready has its place already, and gives it back when it is dropped.
    ///
    /// # Panics
    ///
    /// If `callbacks` is 0.
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
            "with `max_pending(0)` no request would ever get in"
        );
        self.set(|options| options.max_pending = Some(callbacks))
    }

    /// What a response becomes when a callback fails that it had to wait for; 503 by default.
    ///
    /// See [`before_response`](crate::before_response). With [`new_for_grpc`](Self::new_for_grpc)
    /// it is a 200 with the grpc-status 14 by default, and this status without one if it is set.
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

    /// Tells `observer` what happens to each callback. May be called several times; they are
    /// told in that order.
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

    /// Makes the span of every callback, in the place of `deferred` (feature `tracing`).
    ///
    /// `make` is called by [`defer`](crate::defer), on the task of the request: only where a
    /// subscriber listens to spans at `INFO` or below, or somebody else
    /// [observes](Self::observer) the layer. The span follows from the current one; give it
    /// `parent: None`, or it stretches the span of the request. Its fields `name` and `outcome`
    /// are filled in, if it declares them. The callback has no name yet, and a panic in `make` is
    /// a panic of `defer`.
    ///
    /// Without this, it is a span at `INFO` with the fields `method`, `path` (the route of axum
    /// where there is one), `request_id` (the header `x-request-id`), `scope` (a number that tells
    /// requests apart), `name`, `place` (where `defer` was called) and `outcome`.
    ///
    /// ```
    /// use axum_defer::DeferLayer;
    /// use tracing::{field::Empty, info_span};
    ///
    /// let layer = DeferLayer::new().span(|callback| {
    ///     let route = callback.request().and_then(|request| request.route());
    ///     info_span!(parent: None, "after", route, name = Empty, outcome = Empty)
    /// });
    /// # let _ = layer;
    /// ```
    #[cfg(feature = "tracing")]
    #[must_use]
    pub fn span<F>(self, make: F) -> Self
    where
        F: Fn(&CallbackInfo<'_>) -> tracing::Span + Send + Sync + 'static,
    {
        self.set(|options| options.observers.span = Some(Arc::new(make)))
    }

    /// Gives metrics a label for the name of the callback, so that "what share of the welcome
    /// mails fails" has an answer (feature `metrics`).
    ///
    /// The counter and both histograms get the label `name`; callbacks without one are `unnamed`.
    /// Each name is a time series of its own, which metrics systems keep for long: only for
    /// layers whose names are few and fixed. A name that has an order's number in it does harm.
    ///
    /// ```
    /// use axum_defer::{DeferLayer, defer};
    ///
    /// let layer = DeferLayer::new().metrics_by_name();
    /// # let _ = layer;
    /// # async fn handler() {
    /// defer(async {}).name("welcome mail");  // and not: format!("mail to {user}")
    /// # }
    /// ```
    #[cfg(feature = "metrics")]
    #[must_use]
    pub fn metrics_by_name(self) -> Self {
        self.set(|options| options.observers.metrics_by_name = true)
    }

    /// Wraps the future of every callback.
    ///
    /// A callback runs on a task of its own, where neither the task-locals of the request nor
    /// its span are set. `wrap` is called by [`defer`](crate::defer), on the task of the request
    /// and before the callback is registered, so it can look at what is set there and carry it
    /// over. It is called for blocking callbacks too, and wraps the future that waits for the
    /// blocking thread; task-locals don't reach that thread. A panic in `wrap` is a panic of
    /// `defer`.
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
        F: Future<Output = CallbackEnd> + Send + 'static,
    {
        self.set(|options| {
            options.wrap = Some(Arc::new(move |future| CallbackFuture::new(wrap(future))));
        })
    }

    /// Drives each handler to its end, also when the client goes away before the response.
    ///
    /// Without this, a server drops the handler of a client that has gone, at whichever `.await`
    /// it is, and only callbacks that are [`always`](crate::DeferredCallback::always) run. With
    /// it, the services inside of this layer run on a task of their own, and callbacks run by
    /// the status of the response, with the [`Delivery`](crate::Delivery) that was.
    ///
    /// The task counts as work for [`DeferHandle::wait_idle`](crate::DeferHandle::wait_idle) and for a drain. A panic in the
    /// handler reaches the layers outside as it does without this, and upgrades work. A handler
    /// that reads the body of a request whose client has gone gets the error that it would get
    /// anyway. Task-locals of the layers outside are not seen inside.
    ///
    /// It costs a task per request, so it is for the handlers that need it: put the layer on
    /// their routes.
    /// Limits on requests in flight that stand outside of this layer lose sight of a
    /// handler whose client has gone; put them inside.
    ///
    /// # Panics
    ///
    /// The service panics when it is called outside of a Tokio runtime.
    ///
    /// ```
    /// use axum::{Router, routing::post};
    /// use axum_defer::{DeferLayer, defer};
    ///
    /// async fn place_order() -> &'static str {
    ///     // Both of these happen, or the error is known; also if the phone loses its network.
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

    /// Tells a platform for how long each request needs the process, beyond its response.
    ///
    /// For platforms that freeze or end a process when it has answered: AWS Lambda, Vercel,
    /// Cloudflare Workers. [Platforms](crate::guide::platforms) has what to type for each.
    ///
    /// `hook` is called once for each request, with the extensions that the request came with, and
    /// with a future. That is ready when everything that the request has deferred is over, and
    /// nothing can be deferred any more: the response has ended, and no
    /// [`DeferredCallbackCollection`](crate::DeferredCallbackCollection) of the request is held,
    /// by a task say. Whoever gets it keeps the process until then. Nothing depends on it being
    /// polled. What is lost with its runtime is over, too.
    ///
    /// It is called when the handler has answered, on the task that drives the request: before the
    /// response is returned, before any callback runs, and before what
    /// [`before_response`](crate::before_response) has the response wait for. Where there is no
    /// response (the handler was dropped with its client, it panicked, or a service failed) it is
    /// called then. It must not wait for the future itself, as the response would wait for it. A
    /// panic in `hook` goes no further, and the request goes on.
    ///
    /// A [`scope`](Self::scope) is awaited by whoever runs it, so `hook` is not called for it. The
    /// last one that is set is called.
    ///
    /// ```
    /// use axum_defer::DeferLayer;
    ///
    /// /// What the platform gives to each request, in its extensions.
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

    /// Runs callbacks as tasks of something else than a Tokio runtime: Cloudflare Workers say.
    ///
    /// `spawn` is called with one task for each scope whose callbacks run, and with one for what
    /// [`before_response`](crate::before_response) has a response wait for. It is called wherever a
    /// response happens to end, in a destructor too, and has to return at once. A task that it
    /// drops, or a panic in it, means that the callbacks are reported as lost.
    ///
    /// What needs a Tokio runtime by itself still does: [`defer_blocking`](crate::defer_blocking),
    /// [`run_to_completion`](Self::run_to_completion), and time-outs. A callback that has a
    /// [time-out](Self::timeout) where there is no timer is not run, and reported as failed:
    /// `there is no timer for its time-out`.
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
    /// // Late, so the scope has to have it run.
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

    /// Runs the callbacks before the response is returned, for tests: see
    /// [`testing`](crate::testing).
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
    /// recorder.assert_ran(["mail"]);
    /// # }
    /// ```
    #[cfg(feature = "testing")]
    #[must_use]
    pub fn inline(self) -> Self {
        self.set(|options| options.inline = true)
    }

    fn set(self, set: impl FnOnce(&mut Options)) -> Self {
        let mut options = Options::clone(self.options.of_this_thread());
        set(&mut options);
        Self {
            options: SharedOptions::new(&options),
            asker: self.asker,
        }
    }
}

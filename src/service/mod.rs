//! The service: opens a scope for each request and passes it to the response.

use std::{
    fmt,
    future::Future,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http::{Request, Response};
use http_body::Body;
use tower_service::Service;

use self::{
    body::ResponseBody,
    future::{Indirect, Pending, ResponseFuture},
    request_context::{Extra, RequestContext, WaitUntilGuard},
    run_to_completion::DrainGuard,
};
use crate::{
    defer::collection::DeferredCallbackCollection,
    extensions::reserve,
    observe::scope_info::RequestInfo,
    response::end_of_body::Exchange,
    runner::{completion_guard::CompletionGuard, scoped::Scoped},
    scope::{
        Scope,
        max_pending::{Permit, Waiting},
        options::Options,
    },
    sent::response::ResponseHandle,
};

mod before_response;
pub(crate) mod body;
mod finish_body;
pub(crate) mod future;
mod inline;
mod inner_body;
mod parked_body;
mod request_context;
mod run_to_completion;
mod watch;

/// The service of [`DeferLayer`](crate::DeferLayer).
///
/// ```
/// use axum::Router;
/// use axum_defer::{Defer, DeferLayer};
/// use tower::Layer;
///
/// let mut service: Defer<Router> = DeferLayer::new().layer(Router::new());
/// let _router: &Router = service.get_ref();
/// let _router: &mut Router = service.get_mut();
/// let _router: Router = service.into_inner();
/// ```
pub struct Defer<S> {
    inner: S,
    options: Arc<Options>,
    /// The permit of the next request under `max_pending`.
    permit: Option<Permit>,
    waiting: Waiting,
}

impl<S> Defer<S> {
    pub(crate) fn new(inner: S, options: Arc<Options>) -> Self {
        Self {
            inner,
            options,
            permit: None,
            waiting: Waiting::default(),
        }
    }

    /// Puts the layer of this service around another one.
    #[cfg(feature = "serve")]
    pub(crate) fn around<T>(&self, inner: T) -> Defer<T> {
        Defer::new(inner, self.options.clone())
    }

    /// Returns the wrapped service.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// Returns the wrapped service.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// Returns the wrapped service.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<S: Clone> Clone for Defer<S> {
    fn clone(&self) -> Self {
        Self::new(self.inner.clone(), self.options.clone())
    }
}

impl<S: fmt::Debug> fmt::Debug for Defer<S> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Defer")
            .field("inner", &self.inner)
            .finish_non_exhaustive()
    }
}

impl<S, ReqB, ResB> Service<Request<ReqB>> for Defer<S>
where
    S: Service<Request<ReqB>, Response = Response<ResB>>,
    // Handlers that are run to completion run on a task.
    S::Future: Future<Output = Result<Response<ResB>, S::Error>> + Send + 'static,
    S::Error: Send + 'static,
    // The error's text becomes a part of the completion.
    ResB: Body<Error: fmt::Display> + Send + 'static,
{
    type Response = Response<ResponseBody<ResB>>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future, ResB, S::Error>;

    /// Also waits for a permit under [`max_pending`](crate::DeferLayer::max_pending).
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        if let (None, Some(pool)) = (&self.permit, &self.options.max_pending) {
            self.permit = Some(ready!(pool.poll_permit(&mut self.waiting, cx)));
        }
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<ReqB>) -> Self::Future {
        let options = &self.options;
        let response = request.extensions().get::<ResponseHandle>().cloned();
        let drain_guard = options
            .to_completion
            .then(|| DrainGuard::new(options.store.clone()));
        if let Some(response) = &response {
            response.scope_opened();
            response.drain_with(&options.store);
        }
        let info = || Some(RequestInfo::new(&request));
        let permit = self.permit.take();
        let scope = Scope::open(options.clone(), response, info, permit, None);
        let wait_until = match (&options.wait_until, scope.closed()) {
            (Some(hook), Some(closed)) => Some(WaitUntilGuard::new(
                hook.clone(),
                request.extensions(),
                closed,
            )),
            _ => None,
        };
        let extensions = request.extensions_mut();
        reserve(extensions);
        extensions.insert(DeferredCallbackCollection::new(scope.clone()));
        let context = RequestContext {
            is_last_hop: drain_guard.is_none() && !options.inline,
            extra: Extra::new(options.classification.of_request(&mut request), wait_until),
            exchange: Exchange::of(&request),
        };
        if !context.is_last_hop {
            return self.call_indirect(request, context, &scope, drain_guard);
        }
        let mut guard = CompletionGuard::new(scope);
        let entered = guard.enter();
        let future = self.inner.call(request);
        drop(entered);
        // Constructed in place to avoid a large `memcpy`.
        ResponseFuture {
            future: Some(future),
            pending: Some(Pending {
                guard,
                request: context,
            }),
            indirect: None,
        }
    }
}

impl<S> Defer<S> {
    /// Calls the inner service for a request that is not driven by its connection.
    #[inline(never)]
    fn call_indirect<ReqB, B>(
        &mut self,
        request: Request<ReqB>,
        context: RequestContext,
        scope: &Arc<Scope>,
        drain_guard: Option<DrainGuard>,
    ) -> ResponseFuture<S::Future, B, S::Error>
    where
        S: Service<Request<ReqB>, Response = Response<B>>,
        S::Future: Future<Output = Result<Response<B>, S::Error>> + Send + 'static,
        S::Error: Send + 'static,
        B: Body<Error: fmt::Display> + Send + 'static,
    {
        let mut guard = CompletionGuard::new(scope.clone());
        let future = {
            let _entered = guard.enter();
            self.inner.call(request)
        };
        let options = self.options.clone();
        ResponseFuture::indirect(match (options.inline, drain_guard) {
            (true, None) => Indirect::Inline(Box::pin(inline::inline(
                Scoped::new(guard, future),
                context,
            ))),
            (true, Some(drain_guard)) => {
                let inline = inline::inline(Scoped::new(guard, future), context);
                Indirect::RunToCompletion(
                    run_to_completion::spawn(inline, drain_guard, scope),
                    options,
                )
            }
            (false, drain_guard) => {
                let direct = ResponseFuture {
                    future: Some(future),
                    pending: Some(Pending {
                        guard,
                        request: context,
                    }),
                    indirect: None,
                };
                match drain_guard {
                    None => return direct,
                    Some(drain_guard) => {
                        let task = run_to_completion::spawn(direct, drain_guard, scope);
                        Indirect::RunToCompletion(task, options)
                    }
                }
            }
        })
    }
}

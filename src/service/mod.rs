//! The service: opens a scope for each request, and hands it to the response.

use std::{
    fmt,
    future::Future,
    task::{Context, Poll, ready},
};

use http::{Request, Response};
use http_body::Body;
use tower_service::Service;

use self::{
    admission::Admission,
    body::ResponseBody,
    platform::Platform,
    requested::{Beside, Requested},
    response_future::{Asked, Elsewhere, ResponseFuture},
    to_completion::Hold,
};
use crate::{
    defer::collection::DeferredCallbackCollection,
    extensions::make_room,
    observe::scope_info::RequestInfo,
    response::end_of_body::Exchange,
    runner::{completer::Completer, scoped::Scoped},
    scope::{Scope, shared_options::ServiceOptions},
    sent::response::ResponseHandle,
};

mod admission;
pub(crate) mod body;
mod held_back;
mod inline;
mod platform;
mod requested;
pub(crate) mod response_future;
mod to_completion;

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
    options: ServiceOptions,
    admission: Admission,
}

impl<S> Defer<S> {
    pub(crate) fn new(inner: S, options: ServiceOptions) -> Self {
        Self {
            inner,
            options,
            admission: Admission::default(),
        }
    }

    /// The same layer, around something else.
    #[cfg(feature = "serve")]
    pub(crate) fn around<T>(&self, inner: T) -> Defer<T> {
        Defer::new(inner, self.options.share())
    }

    /// The wrapped service.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// The wrapped service.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// The wrapped service.
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
    // For handlers that are run to completion, on a task of their own.
    S::Future: Future<Output = Result<Response<ResB>, S::Error>> + Send + 'static,
    S::Error: Send + 'static,
    ResB: Body + Send + 'static,
{
    type Response = Response<ResponseBody<ResB>>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future, ResB, S::Error>;

    /// Also waits while there is no room under
    /// [`max_pending`](crate::DeferLayer::max_pending).
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        let options = self.options.get();
        if let Some(limit) = options.max_pending {
            ready!(self.admission.poll_place(&options.tracker, limit, cx));
        }
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<ReqB>) -> Self::Future {
        let options = self.options.get();
        let response = request.extensions().get::<ResponseHandle>().cloned();
        let hold = options
            .to_completion
            .then(|| Hold::new(options.clone(), response.as_ref()));
        if let Some(response) = &response {
            response.scope_opened();
            response.drain_with(&options.tracker);
        }
        let place = self.admission.take_place();
        let info = || Some(RequestInfo::of(&request));
        let scope = Scope::open(options.clone(), response, info, place);
        let hold = hold.map(|hold| hold.of(scope.client.clone()));
        let platform = match (&options.wait_until, &scope.idle) {
            (Some(hook), Some(idle)) => {
                Some(Platform::new(hook.clone(), request.extensions(), idle))
            }
            _ => None,
        };
        let extensions = request.extensions_mut();
        make_room(extensions);
        extensions.insert(DeferredCallbackCollection::new(scope.clone()));
        let requested = Requested {
            hands_over: hold.is_none() && !options.inline,
            beside: Beside::of(options.classification.of_request(&mut request), platform),
            exchange: Exchange::of(&request),
        };
        if !requested.hands_over {
            return self.call_apart(request, requested, Completer::new(scope), hold);
        }
        let mut completer = Completer::new(scope);
        let entered = completer.enter();
        let future = self.inner.call(request);
        drop(entered);
        // Built where it is returned: each move of it costs as much as the rest of this function.
        ResponseFuture {
            future: Some(future),
            asked: Some(Asked {
                completer,
                request: requested,
            }),
            elsewhere: None,
        }
    }
}

impl<S> Defer<S> {
    /// Has a request driven in another way than by its connection.
    #[inline(never)]
    fn call_apart<ReqB, B>(
        &mut self,
        request: Request<ReqB>,
        requested: Requested,
        mut completer: Completer,
        hold: Option<Hold>,
    ) -> ResponseFuture<S::Future, B, S::Error>
    where
        S: Service<Request<ReqB>, Response = Response<B>>,
        S::Future: Future<Output = Result<Response<B>, S::Error>> + Send + 'static,
        S::Error: Send + 'static,
        B: Body + Send + 'static,
    {
        let future = {
            let _entered = completer.enter();
            self.inner.call(request)
        };
        if self.options.get().inline {
            let handler = Scoped::new(completer, future);
            let boxed = Box::pin(inline::inline(handler, requested));
            return ResponseFuture::elsewhere(match hold {
                None => Elsewhere::Inline(boxed),
                Some(hold) => Elsewhere::ToCompletion(to_completion::spawn(boxed, hold)),
            });
        }
        let in_place = ResponseFuture {
            future: Some(future),
            asked: Some(Asked {
                completer,
                request: requested,
            }),
            elsewhere: None,
        };
        match hold {
            None => in_place,
            Some(hold) => {
                let task = to_completion::spawn(in_place, hold);
                ResponseFuture::elsewhere(Elsewhere::ToCompletion(task))
            }
        }
    }
}

//! The service: opens a scope for each request, and hands it to the response.

use std::{
    any::Any,
    fmt,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http::{Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use tower_http::classify::MakeClassifier;
use tower_service::Service;

use crate::{
    admission::Admission, body::ResponseBody, collection::DeferredCallbackCollection,
    completer::Completer, end_of_body::Exchange, options::Options, scope::Scope,
    sent::transmission::Transmission,
};

/// The service of [`DeferLayer`](crate::DeferLayer).
pub struct Defer<S, M> {
    inner: S,
    make_classifier: M,
    options: Arc<Options>,
    admission: Admission,
}

impl<S, M> Defer<S, M> {
    pub(crate) fn new(inner: S, make_classifier: M, options: Arc<Options>) -> Self {
        Self {
            inner,
            make_classifier,
            options,
            admission: Admission::default(),
        }
    }

    pub(crate) fn options(&self) -> &Arc<Options> {
        &self.options
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

impl<S: Clone, M: Clone> Clone for Defer<S, M> {
    fn clone(&self) -> Self {
        Self::new(
            self.inner.clone(),
            self.make_classifier.clone(),
            self.options.clone(),
        )
    }
}

impl<S: fmt::Debug, M> fmt::Debug for Defer<S, M> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Defer")
            .field("inner", &self.inner)
            .finish_non_exhaustive()
    }
}

impl<S, M, ReqB, ResB> Service<Request<ReqB>> for Defer<S, M>
where
    S: Service<Request<ReqB>, Response = Response<ResB>>,
    ResB: Body,
    M: MakeClassifier,
{
    type Response = Response<ResponseBody<ResB, M::ClassifyEos>>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future, M, ResB>;

    /// Also waits while there is no room under
    /// [`max_pending`](crate::DeferLayer::max_pending).
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        if let Some(limit) = self.options.max_pending {
            ready!(self.admission.poll_room(&self.options.tracker, limit, cx));
        }
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<ReqB>) -> Self::Future {
        let transmission = request.extensions().get::<Arc<Transmission>>().cloned();
        if let Some(transmission) = &transmission {
            transmission.scope_opened();
        }
        let scope = Scope::open(self.options.clone(), transmission);
        request
            .extensions_mut()
            .insert(DeferredCallbackCollection::new(scope.clone()));
        let head = RequestHead {
            classifier: self.make_classifier.make_classifier(&request),
            exchange: Exchange::of(&request),
        };
        let mut completer = Completer::new(scope);
        let inner = {
            let _entered = completer.enter();
            self.inner.call(request)
        };
        ResponseFuture {
            inner,
            unanswered: Some((completer, head)),
            inline: None,
            runs_inline: self.options.inline,
            hands_over: true,
        }
    }
}

/// What the response is judged by.
struct RequestHead<C> {
    classifier: C,
    exchange: Exchange,
}

pin_project! {
    /// The response future of [`Defer`].
    ///
    /// Dropped before it is ready, or when the wrapped service fails or panics, it decides that
    /// there was no response.
    pub struct ResponseFuture<F, M, B>
    where
        F: Future,
        M: MakeClassifier,
    {
        // Dropped before the scope is decided: what the handler holds is gone when callbacks run.
        #[pin]
        inner: F,
        unanswered: Option<(Completer, RequestHead<M::Classifier>)>,
        inline: Option<Box<Inline<F::Output, Response<ResponseBody<B, M::ClassifyEos>>>>>,
        runs_inline: bool,
        hands_over: bool,
    }
}

/// An answer that waits for its callbacks, which run in the response future.
struct Inline<A, R> {
    answer: Answer<A, R>,
    run: Pin<Box<dyn Future<Output = ()> + Send>>,
}

enum Answer<A, R> {
    Response(R),
    /// As it came, since the type of the error has no name here.
    Failed(A),
    Panicked(Box<dyn Any + Send>),
}

impl<F: Future, M: MakeClassifier, B> ResponseFuture<F, M, B> {
    /// Leaves it to the caller to say when the response has been handed over.
    pub(crate) fn without_hand_over(mut self) -> Self {
        self.hands_over = false;
        self
    }
}

impl<F, M, B, E> Future for ResponseFuture<F, M, B>
where
    F: Future<Output = Result<Response<B>, E>>,
    M: MakeClassifier,
    B: Body,
{
    type Output = Result<Response<ResponseBody<B, M::ClassifyEos>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let Some((completer, _)) = this.unanswered {
            let polled = {
                let _entered = completer.enter();
                if *this.runs_inline {
                    catch_unwind(AssertUnwindSafe(|| this.inner.poll(cx)))
                } else {
                    Ok(this.inner.poll(cx))
                }
            };
            let answer = match polled {
                Ok(polled) => Ok(ready!(polled)),
                Err(panic) => Err(panic),
            };
            let Some((completer, head)) = this.unanswered.take() else {
                return Poll::Pending;
            };
            if let Some(scope) = completer.scope() {
                scope.watch_if_shared();
            }
            let (answer, completer) = match answer {
                Ok(Ok(response)) => {
                    let mut response =
                        ResponseBody::wrap(response, head.exchange, head.classifier, completer);
                    let completer = if *this.runs_inline {
                        response.body_mut().take_completer()
                    } else {
                        None
                    };
                    let Some(completer) = completer else {
                        if *this.hands_over {
                            response.body_mut().handed_over();
                        }
                        return Poll::Ready(Ok(response));
                    };
                    (Answer::Response(response), completer)
                }
                Ok(Err(error)) if !*this.runs_inline => return Poll::Ready(Err(error)),
                Ok(failed) => (Answer::Failed(failed), completer),
                Err(panic) => (Answer::Panicked(panic), completer),
            };
            *this.inline = Some(Box::new(Inline {
                answer,
                run: Box::pin(completer.complete_here()),
            }));
        }
        if let Some(inline) = this.inline {
            ready!(inline.run.as_mut().poll(cx));
        }
        match this.inline.take().map(|inline| inline.answer) {
            Some(Answer::Response(response)) => Poll::Ready(Ok(response)),
            Some(Answer::Failed(Err(error))) => Poll::Ready(Err(error)),
            Some(Answer::Failed(Ok(_))) => unreachable!("a response is no failure"),
            Some(Answer::Panicked(panic)) => resume_unwind(panic),
            None => panic!("`ResponseFuture` polled after it was ready"),
        }
    }
}

impl<F: Future, M: MakeClassifier, B> fmt::Debug for ResponseFuture<F, M, B> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("ResponseFuture")
            .finish_non_exhaustive()
    }
}

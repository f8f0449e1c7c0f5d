//! Drives a request to its end, whether or not its client still waits.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http::{Request, Response};
use http_body::Body;
use tokio::task::JoinHandle;
use tower_http::classify::MakeClassifier;
use tower_service::Service;

use crate::{body::ResponseBody, drain::Tracker, sent::transmission::Transmission, service::Defer};

/// The service of [`DeferLayer::run_to_completion`](crate::DeferLayer::run_to_completion).
#[derive(Clone)]
pub struct RunToCompletion<S, M> {
    inner: Defer<S, M>,
}

impl<S, M> RunToCompletion<S, M> {
    pub(crate) fn new(inner: Defer<S, M>) -> Self {
        Self { inner }
    }
}

impl<S: fmt::Debug, M> fmt::Debug for RunToCompletion<S, M> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("RunToCompletion")
            .field("inner", &self.inner)
            .finish()
    }
}

impl<S, M, ReqB, ResB> Service<Request<ReqB>> for RunToCompletion<S, M>
where
    S: Service<Request<ReqB>, Response = Response<ResB>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
    ResB: Body + Send + 'static,
    M: MakeClassifier<Classifier: Send, ClassifyEos: Send> + 'static,
{
    type Response = Response<ResponseBody<ResB, M::ClassifyEos>>;
    type Error = S::Error;
    type Future = ToCompletionFuture<Self::Response, S::Error>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<ReqB>) -> Self::Future {
        let tracker = self.inner.options().tracker.clone();
        if let Some(transmission) = request.extensions().get::<Arc<Transmission>>() {
            transmission.drains(&tracker);
        }
        let hold = Hold::new(tracker);
        let future = self.inner.call(request).without_hand_over();
        let driven = async move {
            let answer = future.await;
            // The callbacks are counted by now, so that the tracker is not idle in between.
            drop(hold);
            answer
        };
        #[cfg(feature = "tracing")]
        let driven = tracing::Instrument::in_current_span(driven);
        ToCompletionFuture {
            task: tokio::spawn(driven),
        }
    }
}

/// Keeps the tracker from being idle.
struct Hold(Arc<Tracker>);

impl Hold {
    fn new(tracker: Arc<Tracker>) -> Self {
        tracker.hold();
        Self(tracker)
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.let_go();
    }
}

/// The response future of [`RunToCompletion`]; dropping it leaves the request running.
#[derive(Debug)]
pub struct ToCompletionFuture<R, E> {
    task: JoinHandle<Result<R, E>>,
}

impl<B, C, E> Future for ToCompletionFuture<Response<ResponseBody<B, C>>, E>
where
    B: Body,
    C: tower_http::classify::ClassifyEos,
{
    type Output = Result<Response<ResponseBody<B, C>>, E>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match ready!(Pin::new(&mut self.task).poll(cx)) {
            Ok(answer) => {
                let mut response = answer?;
                response.body_mut().handed_over();
                Poll::Ready(Ok(response))
            }
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            // The runtime is shutting down, and this task with it.
            Err(_cancelled) => Poll::Pending,
        }
    }
}

//! A response that waits for callbacks before it.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::{HeaderValue, Response, StatusCode, header};
use http_body::Body;
use tokio::sync::oneshot;

use super::{body::ResponseBody, request_context::RequestContext};
use crate::{
    completion::Delivery,
    runner::{
        OnDrop,
        completion_guard::{BeforeResult, CompletionGuard, run_before, run_before_on_task},
    },
    scope::options::Options,
};

pub(super) struct BeforeResponse<B> {
    run: Run,
    /// The handler's response, without the right to decide the scope.
    response: Option<Response<ResponseBody<B>>>,
    is_last_hop: bool,
}

/// The task that runs the callbacks.
enum Run {
    /// A separate task, which continues if the client disconnects.
    Task(oneshot::Receiver<BeforeResult>),
    /// The calling task, which drives the request to its end.
    Here(Pin<Box<dyn Future<Output = BeforeResult> + Send>>),
    Ended,
}

impl<B> BeforeResponse<B>
where
    B: Body<Error: fmt::Display> + Send + 'static,
{
    pub(super) fn new(
        mut request: RequestContext,
        response: Response<B>,
        guard: CompletionGuard,
    ) -> Self {
        let is_last_hop = std::mem::take(&mut request.is_last_hop);
        let mut response = request.into_response(response, guard);
        let run = match response.body_mut().take_guard() {
            None => Run::Ended,
            Some(mut guard) => {
                // The delivery if the client disconnects before it receives the response.
                guard.verdict.delivery = Delivery::Aborted;
                if is_last_hop {
                    Run::Task(run_before_on_task(guard))
                } else {
                    Run::Here(Box::pin(run_before(guard, OnDrop::Lose)))
                }
            }
        };
        Self {
            run,
            response: Some(response),
            is_last_hop,
        }
    }

    pub(super) fn poll_response(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Response<ResponseBody<B>>> {
        let result = match &mut self.run {
            Run::Here(run) => Some(ready!(run.as_mut().poll(cx))),
            // The sender replies even if the task is dropped.
            Run::Task(result) => ready!(Pin::new(result).poll(cx)).ok(),
            Run::Ended => None,
        };
        self.run = Run::Ended;
        let response = self.response.take();
        let mut response = response.expect("futures are not polled after they are ready");
        match result {
            Some((guard, Ok(()))) => response.body_mut().set_guard(guard),
            Some((guard, Err(failed))) => {
                response = failure(&guard.scope().map(|scope| &*scope.options));
                response.extensions_mut().insert(failed);
                *response.body_mut() = ResponseBody::without_body(Some(guard));
            }
            None => response = failure(&None),
        }
        if self.is_last_hop {
            response.body_mut().handed_off();
        }
        Poll::Ready(response)
    }
}

/// Returns the response that replaces the handler's after a failure.
pub(super) fn failure<B: Body>(options: &Option<&Options>) -> Response<ResponseBody<B>> {
    let mut response = Response::new(ResponseBody::without_body(None));
    *response.status_mut() = match options {
        Some(options) => options.failure_status(),
        None => StatusCode::SERVICE_UNAVAILABLE,
    };
    if options.is_some_and(|options| options.fails_by_grpc_status()) {
        // "Trailers-Only" of the gRPC protocol over HTTP/2. 14 is UNAVAILABLE.
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/grpc"),
        );
        headers.insert("grpc-status", HeaderValue::from_static("14"));
    }
    response
}

//! A response whose head waits for what was registered with `before_response`.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::{HeaderValue, Response, header};
use http_body::Body;
use tokio::task::JoinHandle;

use super::{body::ResponseBody, requested::Requested};
use crate::{
    completion::Delivery,
    runner::{
        Unfinished,
        before::BeforeResponseFailed,
        completer::{Completer, Prepared},
        elsewhere,
    },
};

pub(super) struct HeldBack<B> {
    preparing: Preparing,
    /// There until it goes out. It decides nothing: who prepares has the right.
    response: Option<Response<ResponseBody<B>>>,
    hands_over: bool,
}

/// Where what the response waits for runs.
enum Preparing {
    /// On a task, which goes on when the client goes away.
    OnATask(JoinHandle<Prepared>),
    /// In a task that drives the request to its end anyway, or elsewhere.
    Here(Pin<Box<dyn Future<Output = Prepared> + Send>>),
}

impl<B: Body> HeldBack<B> {
    pub(super) fn new(mut request: Requested, response: Response<B>, completer: Completer) -> Self {
        let hands_over = std::mem::take(&mut request.hands_over);
        let scope = completer.scope();
        let spawn = scope.and_then(|scope| scope.options.spawn.clone());
        let mut response = request.answer(response, completer);
        let preparing = response.body_mut().suspend().map(|mut completer| {
            // If nobody takes the response, since the client has gone.
            completer.verdict.delivery = Delivery::Aborted;
            completer.prepare(Unfinished::IsLost)
        });
        let preparing = async move {
            match preparing {
                Some(preparing) => preparing.await,
                None => unreachable!("its scope is not decided yet"),
            }
        };
        let preparing = match (spawn, tokio::runtime::Handle::try_current()) {
            _ if !hands_over => Preparing::Here(Box::pin(preparing)),
            (Some(spawn), _) => Preparing::Here(Box::pin(elsewhere(spawn, preparing))),
            (None, Ok(runtime)) => Preparing::OnATask(runtime.spawn(preparing)),
            (None, Err(_)) => Preparing::Here(Box::pin(preparing)),
        };
        Self {
            preparing,
            response: Some(response),
            hands_over,
        }
    }

    pub(super) fn poll_release(&mut self, cx: &mut Context<'_>) -> Poll<Response<ResponseBody<B>>> {
        let (completer, outcome) = match &mut self.preparing {
            Preparing::Here(preparing) => ready!(preparing.as_mut().poll(cx)),
            Preparing::OnATask(task) => match ready!(Pin::new(task).poll(cx)) {
                Ok(prepared) => prepared,
                Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                // The runtime is shutting down, and this task with it.
                Err(_cancelled) => return Poll::Pending,
            },
        };
        let response = self.response.take();
        let mut response = response.expect("futures are not polled after they are ready");
        match outcome {
            Ok(()) => response.body_mut().resume(completer),
            Err(failed) => response = failure(failed, completer),
        }
        if self.hands_over {
            response.body_mut().handed_over();
        }
        Poll::Ready(response)
    }
}

/// The response that takes the place of the handler's.
fn failure<B: Body>(
    failed: BeforeResponseFailed,
    completer: Completer,
) -> Response<ResponseBody<B>> {
    let mut response = Response::new(());
    if let Some(scope) = completer.scope() {
        *response.status_mut() = scope.options.failure_status();
        if scope.options.fails_by_grpc_status() {
            // "Trailers-Only" of the gRPC protocol over HTTP/2; 14 is UNAVAILABLE.
            let headers = response.headers_mut();
            headers.insert(
                header::CONTENT_TYPE,
                HeaderValue::from_static("application/grpc"),
            );
            headers.insert("grpc-status", HeaderValue::from_static("14"));
        }
    }
    response.extensions_mut().insert(failed);
    response.map(|()| ResponseBody::without_body(completer))
}

//! Callbacks that run before the response is returned, for tests.

use std::{
    fmt,
    future::{Future, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    pin::pin,
    task::Poll,
};

use http::Response;
use http_body::Body;

use super::{before_response::BeforeResponse, body::ResponseBody, request_context::RequestContext};
use crate::runner::{
    OnDrop,
    completion_guard::{CompletionGuard, run_before},
    scoped::Scoped,
};

/// Drives a request, and runs its callbacks in the calling task, however it ends.
pub(super) async fn inline<F, B, E>(
    handler: Scoped<F>,
    mut request: RequestContext,
) -> Result<Response<ResponseBody<B>>, E>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: Body<Error: fmt::Display> + Send + 'static,
{
    let mut handler = pin!(handler);
    let answer =
        poll_fn(
            |cx| match catch_unwind(AssertUnwindSafe(|| handler.as_mut().poll_in_scope(cx))) {
                Ok(polled) => polled.map(Ok),
                Err(panic) => Poll::Ready(Err(panic)),
            },
        )
        .await;
    handler.as_mut().drop_future();
    let Some(guard) = handler.take_guard() else {
        unreachable!("only this function polls the future");
    };
    request.head_ready(&guard);
    match answer {
        Ok(Ok(response)) => {
            let mut response = if guard.release_head() {
                let mut before = BeforeResponse::new(request, response, guard);
                poll_fn(|cx| before.poll_response(cx)).await
            } else {
                request.into_response(response, guard)
            };
            if let Some(guard) = response.body_mut().complete_early() {
                guard.complete_here().await;
            }
            Ok(response)
        }
        Ok(Err(error)) => {
            complete(guard).await;
            Err(error)
        }
        Err(panic) => {
            complete(guard).await;
            resume_unwind(panic)
        }
    }
}

/// Runs the callbacks of a request without a response.
async fn complete(mut guard: CompletionGuard) {
    if guard.release_head() {
        (guard, _) = run_before(guard, OnDrop::Lose).await;
    }
    guard.complete_here().await;
}

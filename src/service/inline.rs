//! For tests: callbacks run before the response is returned.

use std::{
    future::{Future, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    pin::pin,
    task::Poll,
};

use http::Response;
use http_body::Body;

use super::{
    body::ResponseBody,
    unanswered::{Unanswered, is_answered},
};

/// Answers a request, and runs what it deferred in the calling task, however it ends.
pub(super) async fn inline<F, B, E>(
    unanswered: Unanswered<F>,
) -> Result<Response<ResponseBody<B>>, E>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: Body,
{
    let Unanswered { handler, request } = unanswered;
    let mut handler = pin!(handler);
    let answer =
        poll_fn(
            |cx| match catch_unwind(AssertUnwindSafe(|| handler.as_mut().poll_inside(cx))) {
                Ok(polled) => polled.map(Ok),
                Err(panic) => Poll::Ready(Err(panic)),
            },
        )
        .await;
    handler.as_mut().drop_future();
    let (Some(request), Some(completer)) = (request, handler.take_completer()) else {
        unreachable!("nobody has polled it before");
    };
    is_answered(&completer);
    match answer {
        Ok(Ok(response)) => {
            let mut response = request.answer(response, completer);
            if let Some(completer) = response.body_mut().take_completer() {
                completer.complete_here().await;
            }
            Ok(response)
        }
        Ok(Err(error)) => {
            completer.complete_here().await;
            Err(error)
        }
        Err(panic) => {
            completer.complete_here().await;
            resume_unwind(panic)
        }
    }
}

//! For tests: callbacks run before the response is returned.

use std::{
    future::{Future, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    pin::pin,
    task::Poll,
};

use http::Response;
use http_body::Body;

use super::{body::ResponseBody, held_back::HeldBack, requested::Requested};
use crate::runner::{Unfinished, completer::Completer, scoped::Scoped};

/// Answers a request, and runs what it deferred in the calling task, however it ends.
pub(super) async fn inline<F, B, E>(
    handler: Scoped<F>,
    mut request: Requested,
) -> Result<Response<ResponseBody<B>>, E>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: Body,
{
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
    let Some(completer) = handler.take_completer() else {
        unreachable!("nobody has polled it before");
    };
    request.is_answered(&completer);
    match answer {
        Ok(Ok(response)) => {
            let mut response = if completer.release_head() {
                let mut held_back = HeldBack::new(request, response, completer);
                poll_fn(|cx| held_back.poll_release(cx)).await
            } else {
                request.answer(response, completer)
            };
            if let Some(completer) = response.body_mut().take_completer() {
                completer.complete_here().await;
            }
            Ok(response)
        }
        Ok(Err(error)) => {
            complete(completer).await;
            Err(error)
        }
        Err(panic) => {
            complete(completer).await;
            resume_unwind(panic)
        }
    }
}

/// Where there is no response to wait for.
async fn complete(mut completer: Completer) {
    if completer.release_head() {
        (completer, _) = completer.prepare(Unfinished::IsLost).await;
    }
    completer.complete_here().await;
}

//! For tests: callbacks run before the response is returned.

use std::{
    future::{Future, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    task::Poll,
};

use http::Response;
use http_body::Body;

use super::{body::ResponseBody, unanswered::Unanswered};

/// Answers a request, and runs what it deferred in the calling task, however it ends.
pub(super) async fn inline<F, B, E>(
    unanswered: Unanswered<F>,
) -> Result<Response<ResponseBody<B>>, E>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: Body,
{
    let Unanswered { inner, request } = unanswered;
    // Before the future, so that it is dropped after it.
    let Some(mut request) = request else {
        unreachable!("nobody has polled it");
    };
    let answer = {
        let mut inner = Box::pin(inner);
        poll_fn(|cx| {
            let _entered = request.completer.enter();
            match catch_unwind(AssertUnwindSafe(|| inner.as_mut().poll(cx))) {
                Ok(polled) => polled.map(Ok),
                Err(panic) => Poll::Ready(Err(panic)),
            }
        })
        .await
    };
    request.is_answered();
    match answer {
        Ok(Ok(response)) => {
            let mut response = request.answer(response);
            if let Some(completer) = response.body_mut().take_completer() {
                completer.complete_here().await;
            }
            Ok(response)
        }
        Ok(Err(error)) => {
            request.completer.complete_here().await;
            Err(error)
        }
        Err(panic) => {
            request.completer.complete_here().await;
            resume_unwind(panic)
        }
    }
}

//! The layer that an app would write without this crate.

use std::{
    future::Future,
    mem::take,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Request, State},
    middleware::{Next, from_fn_with_state},
    response::Response,
};
use http_body::{Frame, SizeHint};
use tokio_util::task::TaskTracker;
use tracing::Instrument;

type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The futures that the handler pushed.
#[derive(Clone, Default)]
pub(crate) struct Pushed(Arc<Mutex<Vec<Work>>>);

impl Pushed {
    pub(crate) fn push(self, work: impl Future<Output = ()> + Send + 'static) {
        self.0.lock().expect("no panics").push(Box::pin(work));
    }
}

/// Adds an extension for the handler, and a body that spawns the pushed futures when it is dropped if
/// the response was a success. Failures are not reported, a panic ends the remaining futures, and a
/// shutdown waits only for those that were spawned.
pub(crate) fn hand_made(app: Router) -> Router {
    app.layer(from_fn_with_state(TaskTracker::new(), run_after_body))
}

async fn run_after_body(
    State(tracker): State<TaskTracker>,
    mut request: Request,
    next: Next,
) -> Response {
    let pushed = Pushed::default();
    request.extensions_mut().insert(pushed.clone());
    let response = next.run(request).await;
    if response.status().as_u16() >= 400 {
        return response;
    }
    let last = RunsWhenDropped { pushed, tracker };
    response.map(|inner| Body::new(Watched { inner, _last: last }))
}

struct RunsWhenDropped {
    pushed: Pushed,
    tracker: TaskTracker,
}

impl Drop for RunsWhenDropped {
    fn drop(&mut self) {
        let pushed = take(&mut *self.pushed.0.lock().expect("no panics"));
        if !pushed.is_empty() {
            let run_all = async move {
                for work in pushed {
                    work.await;
                }
            };
            let span = tracing::info_span!("deferred");
            drop(self.tracker.spawn(run_all.instrument(span)));
        }
    }
}

struct Watched {
    inner: Body,
    _last: RunsWhenDropped,
}

impl http_body::Body for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.inner).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

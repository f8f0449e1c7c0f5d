//! Requests that wait for room under `max_pending(1)`.

use std::{
    convert::Infallible,
    future::poll_fn,
    pin::pin,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

use axum::{body::Body, extract::Request, response::Response};
use axum_defer::DeferLayer;
use tokio::runtime::Builder;
use tower::Service;

use crate::{clock, handler};

static POLLS: AtomicUsize = AtomicUsize::new(0);

/// Prints the polls of `poll_ready` and the CPU time in nanoseconds per admission. Every request
/// defers one callback, so that the next request has to wait until this callback ended.
pub(crate) fn measure(waiters: usize) {
    let router = handler::router("defer").expect("a handler of this name");
    let service = DeferLayer::new()
        .max_pending(1)
        .layer(router.with_state::<()>(()));
    let runtime = Builder::new_current_thread().build();
    let took = runtime.expect("a runtime").block_on(async {
        let start = clock::process();
        let requests: Vec<_> = (0..waiters)
            .map(|_| tokio::spawn(request(service.clone())))
            .collect();
        for request in requests {
            request.await.expect("no panic");
        }
        clock::process() - start
    });
    let per_admission = |figure: f64| figure / waiters as f64;
    println!(
        "{:.1} {:.1}",
        per_admission(POLLS.load(Relaxed) as f64),
        per_admission(took.as_nanos() as f64)
    );
}

async fn request<S, B>(mut service: S)
where
    S: Service<Request, Response = Response<B>, Error = Infallible>,
    B: http_body::Body,
{
    let ready = poll_fn(|cx| {
        POLLS.fetch_add(1, Relaxed);
        service.poll_ready(cx)
    });
    let Ok(()) = ready.await;
    let Ok(response) = service.call(Request::new(Body::empty())).await;
    let mut body = pin!(response.into_body());
    while poll_fn(|cx| body.as_mut().poll_frame(cx)).await.is_some() {}
}

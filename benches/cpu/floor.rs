//! The floor: the least code that a layer of this kind needs. It opens a scope in the request
//! extensions and in a thread-local, and runs the pushed futures on one task after the last frame.
//! It has no rules, no names, no handles, no counts, no panic isolation, and no drain.

use std::{
    cell::Cell,
    convert::Infallible,
    future::Future,
    hint::black_box,
    mem::{ManuallyDrop, take},
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, ready},
    time::Instant,
};

use axum::{body::Body, extract::Request, response::Response};
use http_body::{Frame, SizeHint};
use pin_project_lite::pin_project;
use tower::{Layer, Service};

type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

struct Scope {
    opened: Instant,
    pushed: Mutex<Vec<Work>>,
}

#[derive(Clone)]
struct Collection(#[expect(dead_code, reason = "no handler extracts it")] Arc<Scope>);

thread_local! {
    static CURRENT: Cell<ManuallyDrop<Option<Arc<Scope>>>> =
        const { Cell::new(ManuallyDrop::new(None)) };
}

/// A guard that keeps the scope in the thread-local until it is dropped.
struct Entered<'a>(&'a mut Option<Arc<Scope>>);

impl<'a> Entered<'a> {
    fn new(slot: &'a mut Option<Arc<Scope>>) -> Self {
        swap(slot);
        Self(slot)
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        swap(self.0);
    }
}

fn swap(slot: &mut Option<Arc<Scope>>) {
    let entering = ManuallyDrop::new(slot.take());
    *slot = ManuallyDrop::into_inner(CURRENT.replace(entering));
}

pub(crate) fn push(work: impl Future<Output = ()> + Send + 'static) {
    let mut slot = None;
    let entered = Entered::new(&mut slot);
    let scope = entered.0.as_ref().expect("a handler runs in a scope");
    scope.pushed.lock().expect("no panics").push(Box::pin(work));
}

#[derive(Clone)]
pub(crate) struct FloorLayer;

impl<S> Layer<S> for FloorLayer {
    type Service = Floor<S>;

    fn layer(&self, inner: S) -> Floor<S> {
        Floor { inner }
    }
}

#[derive(Clone)]
pub(crate) struct Floor<S> {
    inner: S,
}

impl<S> Service<Request> for Floor<S>
where
    S: Service<Request, Response = Response, Error = Infallible>,
{
    type Response = Response<FloorBody>;
    type Error = Infallible;
    type Future = FloorFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        let scope = Arc::new(Scope {
            opened: Instant::now(),
            pushed: Mutex::default(),
        });
        request.extensions_mut().insert(Collection(scope.clone()));
        let mut scope = Some(scope);
        let inner = {
            let _entered = Entered::new(&mut scope);
            self.inner.call(request)
        };
        FloorFuture { inner, scope }
    }
}

pin_project! {
    pub(crate) struct FloorFuture<F> {
        #[pin]
        inner: F,
        scope: Option<Arc<Scope>>,
    }
}

impl<F> Future for FloorFuture<F>
where
    F: Future<Output = Result<Response, Infallible>>,
{
    type Output = Result<Response<FloorBody>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let polled = {
            let _entered = Entered::new(this.scope);
            this.inner.poll(cx)
        };
        let Ok(response) = ready!(polled);
        let end = End {
            scope: this.scope.take(),
            success: response.status().as_u16() < 400,
        };
        Poll::Ready(Ok(response.map(|inner| FloorBody { inner, end })))
    }
}

struct End {
    scope: Option<Arc<Scope>>,
    success: bool,
}

impl End {
    fn fire(&mut self) {
        let Some(scope) = self.scope.take() else {
            return;
        };
        let pushed = take(&mut *scope.pushed.lock().expect("no panics"));
        if self.success && !pushed.is_empty() {
            let elapsed = scope.opened.elapsed();
            drop(tokio::spawn(async move {
                black_box(elapsed);
                for work in pushed {
                    work.await;
                }
            }));
        }
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.fire();
    }
}

pin_project! {
    pub(crate) struct FloorBody {
        #[pin]
        inner: Body,
        end: End,
    }
}

impl http_body::Body for FloorBody {
    type Data = bytes::Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<bytes::Bytes>, axum::Error>>> {
        let mut this = self.project();
        let polled = {
            let _entered = Entered::new(&mut this.end.scope);
            ready!(this.inner.as_mut().poll_frame(cx))
        };
        if this.inner.is_end_stream() {
            this.end.fire();
        }
        Poll::Ready(polled)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

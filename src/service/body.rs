//! The response body: passes frames on, and decides the scope at their end.

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Buf;
use http::Response;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use super::{
    finish_body::spawn_discard,
    inner_body::{Inner, Movable},
    parked_body::{Parking, Unparked},
    watch::Watch,
};
use crate::{
    catch_panic::message,
    completion::Delivery,
    observe::text::OneLine,
    response::{
        classify::CustomClassifier,
        end_of_body::{Exchange, Progress},
    },
    runner::completion_guard::CompletionGuard,
    scope::{Scope, current},
};

pin_project! {
    /// The response body of [`Defer`](crate::Defer).
    ///
    /// Frames, errors, size hint, and end of stream are those of the wrapped body. It decides the
    /// scope when the body ends. See the [table](crate::guide::end_of_response).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// use axum::{Router, body::Body, extract::Request, response::Response};
    /// use axum_defer::{DeferLayer, ResponseBody};
    /// use tower::{Layer, ServiceExt};
    ///
    /// let service = DeferLayer::new().layer(Router::new());
    /// let response: Response<ResponseBody<Body>> =
    ///     service.oneshot(Request::new(Body::empty())).await.unwrap();
    /// // For functions that take axum's body:
    /// let response: Response = response.map(Body::new);
    /// # drop(response);
    /// # }
    /// ```
    pub struct ResponseBody<B> {
        #[pin]
        inner: Inner<B>,
        watch: Watch,
        parking: Parking<B>,
    }

    impl<B> PinnedDrop for ResponseBody<B> {
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
            this.parking.unpark(this.inner.as_mut(), this.watch);
            if this.watch.is_unfinished() {
                let scope = this.watch.guard.as_ref().and_then(|guard| guard.scope().cloned());
                if let (Some(movable), Some(scope)) = (this.inner.as_mut().take_movable(), scope) {
                    (movable.finish)(movable, std::mem::take(this.watch), &scope);
                    return;
                }
            }
            let mut late_scope = this.watch.late_scope();
            let _entered = match (&mut this.watch.guard, &mut late_scope) {
                (Some(guard), _) => guard.enter(),
                (None, Some(_)) => current::enter(&mut late_scope),
                (None, None) => return,
            };
            this.inner.set(Inner::None);
        }
    }
}

impl<B> ResponseBody<B> {
    /// Wraps a body whose client has disconnected.
    pub(super) fn abandoned(body: B, mut watch: Watch) -> Self {
        watch.is_abandoned = true;
        Self {
            inner: Inner::Pinned { body },
            watch,
            parking: Parking::Never,
        }
    }

    /// Drives the body to its end on a task.
    fn finish(movable: Movable<B>, watch: Watch, scope: &Scope)
    where
        B: Body<Error: fmt::Display> + Send + 'static,
    {
        let body = ResponseBody::abandoned(movable.body, watch);
        spawn_discard(body, ResponseBody::has_ended, scope, movable.limit);
    }

    /// Returns `true` if the body has decided its scope.
    pub(super) fn has_ended(&self) -> bool {
        self.watch.guard.is_none()
    }
}

impl<B> ResponseBody<B>
where
    B: Body<Error: fmt::Display> + Send + 'static,
{
    /// Wraps the body of a response, and classifies its head. If it `is_last_hop`, the response is
    /// [handed off](Self::handed_off) now.
    #[inline]
    pub(crate) fn wrap(
        mut response: Response<B>,
        exchange: Exchange,
        classifier: Option<CustomClassifier>,
        guard: CompletionGuard,
        is_last_hop: bool,
    ) -> Response<Self> {
        let finish_body = guard.scope().and_then(|scope| scope.options.finish_body);
        let parking = Parking::new(exchange.is_multiplexed);
        let watch = Watch::of(&mut response, exchange, classifier, guard);
        response.map(|body| {
            let inner = match finish_body {
                None => Inner::Pinned { body },
                Some(limit) => Inner::Movable {
                    movable: Some(Movable::new(body, limit, Self::finish)),
                },
            };
            let mut body = Self {
                inner,
                watch,
                parking,
            };
            if is_last_hop {
                body.handed_off();
            }
            body
        })
    }
}

impl<B: Body> ResponseBody<B> {
    /// Records that the response leaves the layer. A body that servers do not poll ends now.
    #[inline]
    pub(crate) fn handed_off(&mut self) {
        self.watch.handed_off = true;
        if self.watch.ends_at_hand_off {
            if !self.inner.get().is_none_or(B::is_end_stream) {
                self.watch.keep_scope();
            }
            self.watch.ended(None);
        }
    }

    /// Creates an empty body, which ends when it is handed off.
    pub(super) fn without_body(guard: Option<CompletionGuard>) -> Self {
        let mut watch = Watch::default();
        watch.guard = guard;
        watch.ends_at_hand_off = true;
        Self {
            watch,
            inner: Inner::None,
            parking: Parking::Never,
        }
    }

    /// Takes the right to decide until [`set_guard`](Self::set_guard), because the response waits.
    pub(super) fn take_guard(&mut self) -> Option<CompletionGuard> {
        self.watch.guard.take()
    }

    pub(super) fn set_guard(&mut self, guard: CompletionGuard) {
        self.watch.guard = Some(guard);
    }

    /// Takes the right to decide before the end of the body, as if all of it had been sent.
    pub(super) fn complete_early(&mut self) -> Option<CompletionGuard> {
        self.watch.keep_scope();
        let mut guard = self.watch.guard.take()?;
        guard.verdict.delivery = Delivery::Complete;
        let hint = self.inner.get().and_then(|body| body.size_hint().exact());
        let length = hint.unwrap_or(0);
        guard.verdict.bytes = self.watch.end.bytes_of_whole(length);
        Some(guard)
    }
}

impl<B: Body<Error: fmt::Display>> Body for ResponseBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let mut this = self.project();
        match this.parking.unpark(this.inner.as_mut(), this.watch) {
            Unparked::Here => {}
            // A task drives the body to its end.
            Unparked::Moved => return Poll::Pending,
        }
        let polled = poll_watched(this.inner.as_mut(), this.watch, cx);
        if let Poll::Ready(Some(Ok(_))) = &polled {
            this.parking.park(this.inner, this.watch);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        match self.inner.get() {
            Some(inner) => inner.is_end_stream(),
            // A parked body has not ended.
            None => !self.parking.is_used(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self.inner.get() {
            Some(inner) => inner.size_hint(),
            None if self.parking.is_used() => SizeHint::default(),
            None => SizeHint::with_exact(0),
        }
    }
}

type FrameResult<B> = Result<Frame<<B as Body>::Data>, <B as Body>::Error>;

/// Polls the body inside the scope, and records the frame or the end.
fn poll_watched<B: Body<Error: fmt::Display>>(
    inner: Pin<&mut Inner<B>>,
    watch: &mut Watch,
    cx: &mut Context<'_>,
) -> Poll<Option<FrameResult<B>>> {
    let Some(mut inner) = inner.get_pin() else {
        return Poll::Ready(None);
    };
    let Some(guard) = &mut watch.guard else {
        let mut late_scope = watch.late_scope();
        if late_scope.is_none() {
            return inner.poll_frame(cx);
        }
        let _entered = current::enter(&mut late_scope);
        return inner.poll_frame(cx);
    };
    let polled = {
        let _entered = guard.enter();
        catch_unwind(AssertUnwindSafe(|| inner.as_mut().poll_frame(cx)))
    };
    let polled = match polled {
        Ok(polled) => ready!(polled),
        Err(panic) => {
            watch.failed(|| OneLine(message(panic.as_ref())).to_string());
            resume_unwind(panic);
        }
    };
    match &polled {
        Some(Ok(frame)) => {
            if let (false, Some(data)) = (watch.is_abandoned, frame.data_ref()) {
                guard.verdict.bytes += watch.end.bytes_to_send(data.remaining() as u64);
            }
            match watch.end.frame(frame, &*inner) {
                Progress::Continues => {}
                Progress::Ended | Progress::Short => {
                    if !inner.is_end_stream() {
                        watch.keep_scope();
                    }
                    watch.ended(frame.trailers_ref());
                }
            }
        }
        Some(Err(error)) => watch.failed(|| OneLine(error).to_string()),
        None => watch.ended(None),
    }
    Poll::Ready(polled)
}

impl<B: fmt::Debug> fmt::Debug for ResponseBody<B> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner: &dyn fmt::Debug = match self.inner.get() {
            Some(inner) => inner,
            None => &"dropped",
        };
        formatter
            .debug_struct("ResponseBody")
            .field("inner", inner)
            .field("has_ended", &(self.has_ended() && !self.parking.is_used()))
            .finish()
    }
}

impl<B: Body + Default> Default for ResponseBody<B> {
    /// Returns the default of the wrapped body, without callbacks.
    fn default() -> Self {
        Self {
            watch: Watch::default(),
            inner: Inner::Pinned { body: B::default() },
            parking: Parking::Never,
        }
    }
}

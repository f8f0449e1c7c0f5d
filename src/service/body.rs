//! The response body: passes frames on, and decides the scope at their end.

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Buf;
use http::{HeaderMap, Response};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use super::finish_body::spawn_discard;
use crate::{
    catch_panic::{catch_panic, message},
    completion::Delivery,
    observe::text::OneLine,
    response::{
        classify::{Classified, Classifier, CustomClassifier, EndClassifier, grpc_status},
        end_of_body::{EndOfBody, Exchange, Progress},
    },
    runner::completion_guard::CompletionGuard,
    scope::{Current, Scope, current},
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
    }

    impl<B> PinnedDrop for ResponseBody<B> {
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
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

pin_project! {
    /// The wrapped body.
    #[project = InnerProjection]
    enum Inner<B> {
        Pinned {
            #[pin]
            body: B,
        },
        /// With `finish_body`.
        Movable { movable: Option<Movable<B>> },
        /// There is no body, or it was dropped inside of the scope before that is decided.
        None,
    }
}

/// A body that can be moved to a task when its response is dropped.
struct Movable<B> {
    body: Pin<Box<B>>,
    limit: Duration,
    /// A pointer, because a destructor can have no bounds of its own.
    finish: fn(Self, Watch, &Scope),
}

impl<B> Movable<B>
where
    B: Body<Error: fmt::Display> + Send + 'static,
{
    fn new(body: B, limit: Duration) -> Self {
        Self {
            body: Box::pin(body),
            limit,
            finish: Self::finish,
        }
    }

    /// Drives the body to its end on a task.
    fn finish(self, watch: Watch, scope: &Scope) {
        let body = ResponseBody::abandoned(self.body, watch);
        spawn_discard(body, ResponseBody::has_ended, scope, self.limit);
    }
}

impl<B> Inner<B> {
    fn get(&self) -> Option<&B> {
        match self {
            Self::Pinned { body } => Some(body),
            Self::Movable { movable } => movable.as_ref().map(|movable| &*movable.body),
            Self::None => None,
        }
    }

    #[inline]
    fn get_pin(self: Pin<&mut Self>) -> Option<Pin<&mut B>> {
        match self.project() {
            InnerProjection::Pinned { body } => Some(body),
            InnerProjection::Movable { movable } => {
                movable.as_mut().map(|movable| movable.body.as_mut())
            }
            InnerProjection::None => None,
        }
    }

    fn take_movable(self: Pin<&mut Self>) -> Option<Movable<B>> {
        match self.project() {
            InnerProjection::Movable { movable } => movable.take(),
            InnerProjection::Pinned { .. } | InnerProjection::None => None,
        }
    }
}

/// The state of the body. It decides the scope once: at the end of the body, or when it is dropped.
#[derive(Default)]
pub(super) struct Watch {
    guard: Option<CompletionGuard>,
    end: EndOfBody,
    /// `Some` if the end of the stream distinguishes success from failure. Boxed, because most
    /// responses have none, and each is moved several times.
    at_end: Option<Box<EndClassifier>>,
    ends_at_hand_off: bool,
    handed_off: bool,
    /// A task discards the frames, because the client has left.
    is_abandoned: bool,
    /// The scope, if it was decided before the end of the stream. An outer layer may still poll the
    /// body, and the body may still defer.
    late_scope: Option<Arc<Scope>>,
}

impl Watch {
    #[inline]
    fn of<B: Body>(
        response: &mut Response<B>,
        exchange: Exchange,
        classifier: Option<CustomClassifier>,
        mut guard: CompletionGuard,
    ) -> Self {
        let classifier = match guard.scope() {
            Some(scope) => scope.options.classification.of_response(classifier),
            None => Classifier::Status,
        };
        let Classified { is_success, at_end } = classifier.classify(response);
        guard.verdict.status = Some(response.status());
        guard.verdict.grpc_status = grpc_status(response.headers());
        guard.verdict.success = is_success;
        let end = EndOfBody::of(exchange, response);
        Self {
            guard: Some(guard),
            ends_at_hand_off: end.has_ended_unpolled(response.body()),
            end,
            at_end: at_end.map(Box::new),
            handed_off: false,
            is_abandoned: false,
            late_scope: None,
        }
    }

    /// Returns `true` if the response is not decided, and a server would have to poll the body further.
    fn is_unfinished(&self) -> bool {
        let needs_trailers = self.at_end.is_some();
        self.guard.is_some() && !self.ends_at_hand_off && !self.end.may_be_dropped(needs_trailers)
    }

    fn late_scope(&self) -> Option<Current> {
        self.late_scope.clone().map(Current::external)
    }

    fn keep_scope(&mut self) {
        if let Some(guard) = &self.guard {
            self.late_scope = guard.scope().cloned();
        }
    }

    /// Records that the body has ended on its own.
    #[inline]
    fn ended(&mut self, trailers: Option<&HeaderMap>) {
        let delivery = match self.end.end() {
            Progress::Short => {
                self.set_error(|| "the body ended before its declared length".to_owned());
                Delivery::BodyError
            }
            Progress::Ended | Progress::Continues => Delivery::Complete,
        };
        self.complete(delivery, trailers);
    }

    /// The body returned an error or panicked.
    fn failed(&mut self, text: impl FnOnce() -> String) {
        self.set_error(text);
        self.complete(Delivery::BodyError, None);
    }

    fn set_error(&mut self, text: impl FnOnce() -> String) {
        if let Some(guard) = &mut self.guard {
            // `Display` is user code.
            let text = catch_panic(text).unwrap_or_else(|message| OneLine(message).to_string());
            guard.verdict.body_error = Some(text.into());
        }
    }

    #[inline]
    fn complete(&mut self, delivery: Delivery, trailers: Option<&HeaderMap>) {
        let Some(mut guard) = self.guard.take() else {
            return;
        };
        guard.verdict.body_finished = delivery == Delivery::Complete;
        guard.verdict.delivery = match self.is_abandoned {
            true => Delivery::Aborted,
            false => delivery,
        };
        if let Some(trailers) = trailers {
            guard.verdict.grpc_status = grpc_status(trailers).or(guard.verdict.grpc_status);
        }
        if let Some(at_end) = self.at_end.take() {
            let classified = at_end.is_success(trailers);
            guard.verdict.success = match trailers {
                Some(_) => classified,
                None => classified && guard.verdict.success && delivery != Delivery::BodyError,
            };
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let is_finished = !self.is_unfinished();
        if let Some(guard) = &mut self.guard {
            let needs_trailers = self.at_end.is_some();
            let whole = self.handed_off && self.end.may_be_dropped(needs_trailers);
            guard.verdict.body_finished = is_finished;
            guard.verdict.delivery = if whole && !self.is_abandoned {
                Delivery::Complete
            } else {
                Delivery::Aborted
            };
        }
    }
}

impl<B> ResponseBody<B> {
    /// Wraps a body whose client has left.
    pub(super) fn abandoned(body: B, mut watch: Watch) -> Self {
        watch.is_abandoned = true;
        Self {
            inner: Inner::Pinned { body },
            watch,
        }
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
        let watch = Watch::of(&mut response, exchange, classifier, guard);
        response.map(|body| {
            let inner = match finish_body {
                None => Inner::Pinned { body },
                Some(limit) => Inner::Movable {
                    movable: Some(Movable::new(body, limit)),
                },
            };
            let mut body = Self { inner, watch };
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
        let this = self.project();
        let watch = this.watch;
        let Some(mut inner) = this.inner.get_pin() else {
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

    fn is_end_stream(&self) -> bool {
        self.inner.get().is_none_or(B::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        match self.inner.get() {
            Some(inner) => inner.size_hint(),
            None => SizeHint::with_exact(0),
        }
    }
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
            .field("has_ended", &self.watch.guard.is_none())
            .finish()
    }
}

impl<B: Body + Default> Default for ResponseBody<B> {
    /// Returns the default of the wrapped body, without callbacks.
    fn default() -> Self {
        Self {
            watch: Watch::default(),
            inner: Inner::Pinned { body: B::default() },
        }
    }
}

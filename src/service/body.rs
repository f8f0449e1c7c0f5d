//! The response body: passes frames on, and watches for the end.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Buf;
use http::{HeaderMap, Response};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use crate::{
    completion::Delivery,
    response::{
        classify::{Classified, Classifier, CustomClassifier, EndClassifier},
        end_of_body::{EndOfBody, Exchange, Progress},
    },
    runner::completer::Completer,
    scope::{
        Scope,
        current::{self, Current},
    },
};

pin_project! {
    /// The response body of [`Defer`](crate::Defer).
    ///
    /// Frames, errors, size hint and end of stream are those of the wrapped body. It decides the
    /// scope when the body ends, whichever way it does; see the
    /// [table](crate::guide::when_it_is_over).
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
    /// // For what wants the body of axum:
    /// let response: Response = response.map(Body::new);
    /// # drop(response);
    /// # }
    /// ```
    pub struct ResponseBody<B> {
        // Gone only while this is dropped: inside of the scope, and before that is decided.
        #[pin]
        inner: Option<B>,
        watch: Watch,
    }

    impl<B> PinnedDrop for ResponseBody<B> {
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
            let mut beside = this.watch.beside();
            let _entered = match (&mut this.watch.completer, &mut beside) {
                (Some(completer), _) => completer.enter(),
                (None, Some(_)) => current::enter(&mut beside),
                // It is over, and its destructor is in no scope.
                (None, None) => return,
            };
            this.inner.set(None);
        }
    }
}

/// Ends the scope exactly once: at the end of the body, and at the latest when dropped.
#[derive(Default)]
struct Watch {
    completer: Option<Completer>,
    end: EndOfBody,
    /// Where only the end of the stream tells success from failure.
    ///
    /// Boxed, as most responses have none, and each is moved several times.
    at_end: Option<Box<EndClassifier>>,
    is_over_already: bool,
    handed_over: bool,
    /// Decided before the body has said that it is over: it may still be polled, by a layer
    /// outside, and it may still defer.
    decided_early: Option<Arc<Scope>>,
}

impl Watch {
    #[inline]
    fn of<B: Body>(
        response: &mut Response<B>,
        exchange: Exchange,
        classifier: Option<CustomClassifier>,
        mut completer: Completer,
    ) -> Self {
        let classifier = match completer.scope() {
            Some(scope) => scope.options.classification.of_response(classifier),
            None => Classifier::Status,
        };
        let Classified { is_success, at_end } = classifier.classify(response);
        completer.verdict.status = Some(response.status());
        completer.verdict.success = is_success;
        let end = EndOfBody::of(exchange, response);
        Self {
            completer: Some(completer),
            is_over_already: end.is_over_already(response.body()),
            end,
            at_end: at_end.map(Box::new),
            handed_over: false,
            decided_early: None,
        }
    }

    /// The scope of a body that goes on after its scope was decided.
    fn beside(&self) -> Option<Current> {
        self.decided_early.clone().map(Current::beside)
    }

    fn decides_early(&mut self) {
        if let Some(completer) = &self.completer {
            self.decided_early = completer.scope().cloned();
        }
    }

    /// The body has come to its end, by itself.
    #[inline]
    fn ended(&mut self, trailers: Option<&HeaderMap>) {
        let delivery = match self.end.end() {
            Progress::Short => Delivery::BodyError,
            Progress::Over | Progress::Continues => Delivery::Sent,
        };
        self.complete(delivery, trailers);
    }

    #[inline]
    fn complete(&mut self, delivery: Delivery, trailers: Option<&HeaderMap>) {
        let Some(mut completer) = self.completer.take() else {
            return;
        };
        completer.verdict.delivery = delivery;
        if let Some(at_end) = self.at_end.take() {
            let classified = at_end.is_success(trailers);
            completer.verdict.success = match trailers {
                Some(_) => classified,
                None => classified && completer.verdict.success && delivery != Delivery::BodyError,
            };
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(completer) = &mut self.completer {
            let awaits_trailers = self.at_end.is_some();
            let whole = self.handed_over && self.end.may_be_dropped(awaits_trailers);
            completer.verdict.delivery = if whole {
                Delivery::Sent
            } else {
                Delivery::Aborted
            };
        }
    }
}

impl<B: Body> ResponseBody<B> {
    /// Wraps the body of a response, and classifies it as far as its head tells. Where it `leaves`
    /// the layer now, there is no need to say that it is [handed over](Self::handed_over).
    #[inline]
    pub(crate) fn wrap(
        mut response: Response<B>,
        exchange: Exchange,
        classifier: Option<CustomClassifier>,
        completer: Completer,
        leaves: bool,
    ) -> Response<Self> {
        let watch = Watch::of(&mut response, exchange, classifier, completer);
        response.map(|inner| {
            let mut body = Self {
                watch,
                inner: Some(inner),
            };
            if leaves {
                body.handed_over();
            }
            body
        })
    }

    /// The response leaves the layer: a body that nobody will poll is over now.
    #[inline]
    pub(crate) fn handed_over(&mut self) {
        self.watch.handed_over = true;
        if self.watch.is_over_already {
            if !self.is_end_stream() {
                self.watch.decides_early();
            }
            self.watch.ended(None);
        }
    }

    /// No body at all, over when it is handed over.
    pub(super) fn without_body(completer: Completer) -> Self {
        let mut watch = Watch::default();
        watch.completer = Some(completer);
        watch.is_over_already = true;
        Self { watch, inner: None }
    }

    /// The right to decide, until it is [given back](Self::resume): the response waits.
    pub(super) fn suspend(&mut self) -> Option<Completer> {
        self.watch.completer.take()
    }

    pub(super) fn resume(&mut self, completer: Completer) {
        self.watch.completer = Some(completer);
    }

    /// The right to decide, for who runs the callbacks without waiting for the end of the body.
    pub(super) fn take_completer(&mut self) -> Option<Completer> {
        self.watch.decides_early();
        let mut completer = self.watch.completer.take()?;
        completer.verdict.delivery = Delivery::Sent;
        let length = self.size_hint().exact().unwrap_or(0);
        completer.verdict.bytes = self.watch.end.bytes_of_whole(length);
        Some(completer)
    }
}

impl<B: Body> Body for ResponseBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let this = self.project();
        let watch = this.watch;
        let Some(mut inner) = this.inner.as_pin_mut() else {
            return Poll::Ready(None);
        };
        let Some(completer) = &mut watch.completer else {
            let mut beside = watch.beside();
            if beside.is_none() {
                return inner.poll_frame(cx);
            }
            let _entered = current::enter(&mut beside);
            return inner.poll_frame(cx);
        };
        let polled = {
            let _entered = completer.enter();
            ready!(inner.as_mut().poll_frame(cx))
        };
        match &polled {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    completer.verdict.bytes += watch.end.bytes_to_send(data.remaining() as u64);
                }
                match watch.end.frame(frame, &*inner) {
                    Progress::Continues => {}
                    Progress::Over | Progress::Short => {
                        if !inner.is_end_stream() {
                            watch.decides_early();
                        }
                        watch.ended(frame.trailers_ref());
                    }
                }
            }
            Some(Err(_)) => watch.complete(Delivery::BodyError, None),
            None => watch.ended(None),
        }
        Poll::Ready(polled)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(B::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        match &self.inner {
            Some(inner) => inner.size_hint(),
            None => SizeHint::with_exact(0),
        }
    }
}

impl<B: fmt::Debug> fmt::Debug for ResponseBody<B> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner: &dyn fmt::Debug = match &self.inner {
            Some(inner) => inner,
            None => &"dropped",
        };
        formatter
            .debug_struct("ResponseBody")
            .field("inner", inner)
            .field("is_over", &self.watch.completer.is_none())
            .finish()
    }
}

impl<B: Body + Default> Default for ResponseBody<B> {
    /// The default of the wrapped body, with nothing deferred to its end.
    fn default() -> Self {
        Self {
            watch: Watch::default(),
            inner: Some(B::default()),
        }
    }
}

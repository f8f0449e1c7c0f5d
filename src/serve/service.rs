//! The app of one connection, as hyper calls it: its requests, their bodies, and its span.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use axum::{
    body::{Body, Bytes},
    extract::Request,
};
use http::{Response, Version};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use hyper_util::service::{TowerToHyperService, TowerToHyperServiceFuture};
use pin_project_lite::pin_project;
use tower_service::Service;
#[cfg(feature = "tracing")]
use tracing::{
    Span,
    instrument::{Instrument, Instrumented},
};

#[cfg(not(feature = "tracing"))]
use self::untraced::{Instrument, Instrumented, Span};
use crate::sent::{
    SentBody, SentFuture,
    connection::{Connection, RequestBodyGuard},
    io::SentIo,
};

/// The service of one connection. hyper shares it among the requests, so it is not cloned for each.
pub(super) struct ConnectionService<S> {
    service: TowerToHyperService<S>,
    connection: Arc<Connection>,
    span: Span,
}

impl<S> ConnectionService<S> {
    pub(super) fn new<I>(service: S, io: &SentIo<I>, span: Span) -> Self {
        Self {
            service: TowerToHyperService::new(service),
            connection: io.connection().clone(),
            span,
        }
    }
}

impl<S, B> hyper::service::Service<Request<Incoming>> for ConnectionService<S>
where
    S: Service<Request, Response = Response<B>, Error = Infallible> + Clone,
    B: http_body::Body,
{
    type Response = Response<SentBody<B>>;
    type Error = Infallible;
    type Future = SentFuture<InSpan<TowerToHyperServiceFuture<S, Request>>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        // An HTTP/2 request runs on a task of its own, outside the connection's span.
        let is_http2 = request.version() == Version::HTTP_2;
        let span = is_http2.then(|| self.span.clone());
        let request: Request = request.map(|body| RequestBody::wrap(body, &self.connection));
        SentFuture::new(&self.connection, request, |request| {
            InSpan::new(self.service.call(request), span)
        })
    }
}

/// A request body that counts as a part of its request, so the connection is not idle before its end.
pub(super) struct RequestBody {
    // `None` after the end of the body. Dropped before the body, whose drop lets hyper continue.
    guard: Option<RequestBodyGuard>,
    incoming: Incoming,
}

impl RequestBody {
    /// Wraps a body, unless it is empty.
    pub(super) fn wrap(incoming: Incoming, connection: &Arc<Connection>) -> Body {
        if http_body::Body::is_end_stream(&incoming) {
            return Body::new(incoming);
        }
        Body::new(Self {
            guard: Some(connection.request_body()),
            incoming,
        })
    }
}

impl http_body::Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let polled = Pin::new(&mut self.incoming).poll_frame(cx);
        if let Some(guard) = &mut self.guard {
            guard.set_waiting(polled.is_pending());
        }
        let polled = ready!(polled);
        // If the response was sent, hyper reports the end of the body only with the next request.
        if !matches!(polled, Some(Ok(_))) || self.incoming.is_end_stream() {
            self.guard = None;
        }
        Poll::Ready(polled)
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

pin_project! {
    /// A future in the span of its connection, if there is a subscriber for it.
    #[project = InSpanProjected]
    pub(super) enum InSpan<F> {
        None {
            #[pin]
            future: F,
        },
        Span {
            #[pin]
            future: Instrumented<F>,
        },
    }
}

impl<F> InSpan<F> {
    pub(super) fn new(future: F, span: Option<Span>) -> Self {
        match span {
            Some(span) if !span.is_disabled() => Self::Span {
                future: future.instrument(span),
            },
            _ => Self::None { future },
        }
    }
}

impl<F: Future> Future for InSpan<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        match self.project() {
            InSpanProjected::None { future } => future.poll(cx),
            InSpanProjected::Span { future } => future.poll(cx),
        }
    }
}

/// Returns the span of a connection.
pub(super) fn connection_span(remote_addr: &impl std::fmt::Debug) -> Span {
    #[cfg(feature = "tracing")]
    {
        tracing::debug_span!(
            target: "axum_defer::connection",
            parent: None,
            "connection",
            remote_addr = ?remote_addr,
        )
    }
    #[cfg(not(feature = "tracing"))]
    {
        let _ = remote_addr;
        Span::none()
    }
}

/// Replaces `tracing` without that feature.
#[cfg(not(feature = "tracing"))]
mod untraced {
    #[derive(Clone)]
    pub(crate) struct Span;

    impl Span {
        pub(crate) fn none() -> Self {
            Self
        }

        pub(crate) fn is_disabled(&self) -> bool {
            true
        }
    }

    pub(crate) type Instrumented<F> = F;

    pub(crate) trait Instrument: Sized {
        fn instrument(self, _: Span) -> Self {
            self
        }
    }

    impl<F> Instrument for F {}
}

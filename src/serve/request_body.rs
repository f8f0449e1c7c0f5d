//! The body of a request, which may arrive after its response was sent.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use axum::body::{Body, Bytes};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;

use crate::sent::connection::{Connection, RequestBodyGuard};

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

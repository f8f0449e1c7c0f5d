//! The body of a request over HTTP/1, which may come for longer than its response takes.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use axum::body::{Body, Bytes};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;

use crate::sent::connection::{Connection, RequestBodyComes};

/// Tells the connection for how long it comes: meanwhile, it is not the next head that is awaited.
pub(super) struct RequestBody {
    // Gone at the end of the body. Dropped before that, whose drop has hyper go on.
    comes: Option<RequestBodyComes>,
    incoming: Incoming,
}

impl RequestBody {
    /// As the app gets it. Most requests have none, and pay nothing.
    pub(super) fn of(incoming: Incoming, connection: &Arc<Connection>) -> Body {
        if http_body::Body::is_end_stream(&incoming) {
            return Body::new(incoming);
        }
        Body::new(Self {
            comes: Some(connection.request_body()),
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
        if let Some(comes) = &mut self.comes {
            comes.set_awaited(polled.is_pending());
        }
        let polled = ready!(polled);
        // hyper keeps the end of a body to itself, if its response is out, until the next request.
        if !matches!(polled, Some(Ok(_))) || self.incoming.is_end_stream() {
            self.comes = None;
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

//! When a response body is over, seen from the outside of the server that polls it.

use http::{HeaderMap, Method, Request, Response, StatusCode, Version, header};
use http_body::{Body, Frame};

/// What a request says of the body of its response.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Exchange {
    is_head: bool,
    is_connect: bool,
    /// HTTP/2, where responses share a connection.
    pub(crate) is_multiplexed: bool,
}

impl Exchange {
    pub(crate) fn of<B>(request: &Request<B>) -> Self {
        Self {
            is_head: *request.method() == Method::HEAD,
            is_connect: *request.method() == Method::CONNECT,
            is_multiplexed: request.version() >= Version::HTTP_2,
        }
    }

    fn is_bodiless(self, status: StatusCode) -> bool {
        self.is_head
            || status.is_informational()
            || status == StatusCode::NO_CONTENT
            || status == StatusCode::NOT_MODIFIED
            || (self.is_connect && status.is_success())
    }
}

/// Follows one response body to its end.
///
/// A body that is polled to `None` is the exception, not the rule: hyper leaves a body alone as
/// soon as it knows that there is no more, and never polls one whose response can't have a body.
#[derive(Debug, Default)]
pub(crate) struct EndOfBody {
    /// The response can't have a body (RFC 9110, sections 9.3.2, 9.3.6, 15.2, 15.3.5 and
    /// 15.4.5), so dropping it unpolled is its proper end.
    bodiless: bool,
    /// Bytes that are still to come, where the length is declared.
    remaining: Option<u64>,
    /// The version is HTTP/1: hyper drops the body once the declared length is reached, where
    /// over HTTP/2 it goes on polling for trailers.
    ends_at_length: bool,
}

/// What a poll of the body said.
pub(crate) enum Progress {
    Continues,
    Over,
    /// The body ended before the length that it had declared.
    Short,
}

impl EndOfBody {
    pub(crate) fn of<B: Body>(exchange: Exchange, response: &Response<B>) -> Self {
        let bodiless = exchange.is_bodiless(response.status());
        let remaining = if bodiless {
            None
        } else {
            // hyper trusts the body where both are there.
            let hint = response.body().size_hint().exact();
            hint.or_else(|| content_length(response.headers()))
        };
        Self {
            bodiless,
            remaining,
            ends_at_length: !exchange.is_multiplexed,
        }
    }

    /// Whether the body is over before its first poll, so that nobody will poll it.
    pub(crate) fn is_over_already(&self, body: &impl Body) -> bool {
        body.is_end_stream() || (self.ends_at_length && self.remaining == Some(0))
    }

    /// Whether the body may be dropped now without anything missing from the response.
    pub(crate) fn may_be_dropped(&self, awaits_trailers: bool) -> bool {
        self.bodiless || (self.remaining == Some(0) && !awaits_trailers)
    }

    /// How many bytes of a data frame the server will send: hyper cuts an HTTP/1 body off at the
    /// declared length.
    pub(crate) fn bytes_to_send(&self, length: u64) -> u64 {
        match self.remaining {
            Some(remaining) if self.ends_at_length => remaining.min(length),
            _ => length,
        }
    }

    /// Takes note of a frame that the body, as it is now, has just yielded.
    pub(crate) fn frame<D: bytes::Buf>(&mut self, frame: &Frame<D>, body: &impl Body) -> Progress {
        if let Some(data) = frame.data_ref() {
            if let Some(remaining) = &mut self.remaining {
                *remaining = remaining.saturating_sub(data.remaining() as u64);
            }
        }
        if frame.is_trailers() || self.is_over_already(body) {
            Progress::Over
        } else {
            Progress::Continues
        }
    }

    /// Takes note of the end of the body.
    pub(crate) fn none(&self) -> Progress {
        match self.remaining {
            Some(missing) if missing > 0 => Progress::Short,
            _ => Progress::Over,
        }
    }
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers
        .get(header::CONTENT_LENGTH)?
        .to_str()
        .ok()?
        .parse()
        .ok()
}

//! The end of a response body, as the server that polls it sees it.

use http::{HeaderMap, Method, Request, Response, StatusCode, Version, header};
use http_body::{Body, Frame};

/// The properties of a request that determine the body of its response.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Exchange {
    is_head: bool,
    is_connect: bool,
    /// HTTP/2: responses share a connection.
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

    #[inline]
    fn is_bodiless(self, status: StatusCode) -> bool {
        self.is_head
            || status.is_informational()
            || status == StatusCode::NO_CONTENT
            || status == StatusCode::NOT_MODIFIED
            || (self.is_connect && status.is_success())
    }
}

/// A tracker of one response body to its end.
///
/// Most bodies are not polled to `None`: hyper stops polling when it knows that nothing follows, and
/// never polls the body of a response that cannot have one.
#[derive(Debug, Default)]
pub(crate) struct EndOfBody {
    /// The response cannot have a body (RFC 9110, sections 9.3.2, 9.3.6, 15.2, 15.3.5, and 15.4.5),
    /// so it is complete if it is dropped unpolled.
    bodiless: bool,
    /// Bytes that have not passed yet. `None` if no length is declared.
    remaining: Option<u64>,
    /// HTTP/1: hyper drops the body at the declared length. Over HTTP/2, it continues to poll for
    /// trailers.
    ends_at_length: bool,
}

/// The state of the body after a poll.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Progress {
    Continues,
    Ended,
    /// The body ended before its declared length.
    Short,
}

impl EndOfBody {
    pub(crate) fn of<B: Body>(exchange: Exchange, response: &Response<B>) -> Self {
        let bodiless = exchange.is_bodiless(response.status());
        let remaining = if bodiless {
            None
        } else {
            // Like hyper, prefers the size hint to the header.
            let hint = response.body().size_hint().exact();
            hint.or_else(|| content_length(response.headers()))
        };
        Self {
            bodiless,
            remaining,
            ends_at_length: !exchange.is_multiplexed,
        }
    }

    /// Returns `true` if the body has ended before its first poll, so the server will not poll it.
    pub(crate) fn has_ended_unpolled(&self, body: &impl Body) -> bool {
        body.is_end_stream() || (self.ends_at_length && self.remaining == Some(0))
    }

    /// Returns `true` if the response is complete when the body is dropped now.
    #[inline]
    pub(crate) fn may_be_dropped(&self, needs_trailers: bool) -> bool {
        self.bodiless || (self.remaining == Some(0) && !needs_trailers)
    }

    /// Returns how many bytes of a data frame the server will send. hyper truncates an HTTP/1 body at
    /// the declared length.
    #[inline]
    pub(crate) fn bytes_to_send(&self, length: u64) -> u64 {
        match self.remaining {
            Some(remaining) if self.ends_at_length => remaining.min(length),
            _ => length,
        }
    }

    /// Returns how many bytes of a body of this length the server will send.
    pub(crate) fn bytes_of_whole(&self, length: u64) -> u64 {
        if self.bodiless {
            0
        } else {
            self.bytes_to_send(length)
        }
    }

    /// Records a frame that the body has just returned.
    pub(crate) fn frame<D: bytes::Buf>(&mut self, frame: &Frame<D>, body: &impl Body) -> Progress {
        if let Some(data) = frame.data_ref() {
            if let Some(remaining) = &mut self.remaining {
                *remaining = remaining.saturating_sub(data.remaining() as u64);
            }
        }
        if frame.is_trailers() || self.has_ended_unpolled(body) {
            self.end()
        } else {
            Progress::Continues
        }
    }

    /// Records the end of the body.
    #[inline]
    pub(crate) fn end(&self) -> Progress {
        match self.remaining {
            Some(missing) if missing > 0 => Progress::Short,
            _ => Progress::Ended,
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

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http_body_util::{Empty, Full};

    use super::*;

    fn declaring(length: u64) -> Response<Empty<Bytes>> {
        let mut response = Response::new(Empty::new());
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_LENGTH, length.into());
        response
    }

    fn exchange(method: Method, version: Version) -> Exchange {
        let mut request = Request::new(());
        *request.method_mut() = method;
        *request.version_mut() = version;
        Exchange::of(&request)
    }

    fn end_of_body<B: Body>(response: &Response<B>, version: Version) -> EndOfBody {
        EndOfBody::of(exchange(Method::GET, version), response)
    }

    /// Returns a stream without an exact size, which only `None` ends.
    fn stream() -> impl Body<Data = Bytes> {
        http_body_util::StreamBody::new(futures_util::stream::pending::<
            Result<Frame<Bytes>, std::convert::Infallible>,
        >())
    }

    #[test]
    fn body_ending_before_length_is_short() {
        for version in [Version::HTTP_11, Version::HTTP_2] {
            let mut end = end_of_body(&declaring(6).map(|_| stream()), version);
            let data = Frame::data(Bytes::from_static(b"hello"));
            assert!(matches!(end.frame(&data, &stream()), Progress::Continues));
            let ended = Full::<Bytes>::default();
            let nothing = Frame::data(Bytes::new());
            assert!(matches!(end.frame(&nothing, &ended), Progress::Short));
            assert!(matches!(end.end(), Progress::Short));
            assert!(!end.may_be_dropped(false));
        }
    }

    #[test]
    fn trailers_end_body() {
        let mut end = end_of_body(&Response::new(stream()), Version::HTTP_2);
        let trailers = Frame::<Bytes>::trailers(HeaderMap::new());
        assert!(matches!(end.frame(&trailers, &stream()), Progress::Ended));
    }

    #[test]
    fn http1_body_ends_at_declared_length() {
        let data = Frame::data(Bytes::from_static(b"hello"));
        let mut end = end_of_body(&declaring(5).map(|_| stream()), Version::HTTP_11);
        assert_eq!(end.bytes_to_send(7), 5);
        assert!(matches!(end.frame(&data, &stream()), Progress::Ended));
        let mut end = end_of_body(&declaring(5).map(|_| stream()), Version::HTTP_2);
        assert_eq!(end.bytes_to_send(7), 7);
        assert!(matches!(end.frame(&data, &stream()), Progress::Continues));
        assert!(end.may_be_dropped(false));
        assert!(!end.may_be_dropped(true), "the trailers are missing");
        assert!(matches!(end.end(), Progress::Ended));
    }

    #[test]
    fn size_hint_overrides_content_length() {
        let response = declaring(9).map(|_| Full::new(Bytes::from_static(b"hello")));
        let end = end_of_body(&response, Version::HTTP_11);
        assert_eq!(end.bytes_to_send(7), 5);
    }

    #[test]
    fn bodiless_response_may_be_dropped() {
        let bodiless = |method: Method, status: u16| {
            let mut response = declaring(7).map(|_| stream());
            *response.status_mut() = StatusCode::from_u16(status).expect("valid status");
            EndOfBody::of(exchange(method, Version::HTTP_11), &response).may_be_dropped(false)
        };
        assert!(bodiless(Method::HEAD, 200) && bodiless(Method::HEAD, 404));
        assert!(bodiless(Method::GET, 204) && bodiless(Method::GET, 304));
        assert!(bodiless(Method::GET, 101) && bodiless(Method::CONNECT, 200));
        assert!(!bodiless(Method::CONNECT, 404) && !bodiless(Method::GET, 200));
        assert!(!bodiless(Method::GET, 206) && !bodiless(Method::POST, 303));
    }
}

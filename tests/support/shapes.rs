//! Response bodies that servers treat differently.

#![allow(
    dead_code,
    unreachable_pub,
    missing_debug_implementations,
    clippy::unwrap_used
)]

use std::{
    collections::VecDeque,
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use axum::{body::Body, response::Response};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header};
use http_body::{Frame, SizeHint};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    OneFrame,
    /// Several frames with a known total length.
    ManyFrames,
    /// A stream of unknown length.
    Chunked,
    /// A stream with a declared length.
    ContentLength,
    /// A stream that ends with trailers.
    Trailers,
}

impl Shape {
    pub const ALL: [Self; 5] = [
        Self::OneFrame,
        Self::ManyFrames,
        Self::Chunked,
        Self::ContentLength,
        Self::Trailers,
    ];

    pub fn response(self, size: usize) -> Response {
        let mut response = Response::new(self.body(size));
        let headers = response.headers_mut();
        match self {
            Self::ContentLength => {
                headers.insert(header::CONTENT_LENGTH, size.into());
            }
            Self::Trailers => {
                headers.insert(header::TRAILER, HeaderValue::from_static("checked"));
            }
            Self::OneFrame | Self::ManyFrames | Self::Chunked => {}
        }
        response
    }

    pub fn body(self, size: usize) -> Body {
        let all = Bytes::from(vec![b'x'; size]);
        if self == Self::OneFrame {
            return Body::from(all);
        }
        let mut frames: VecDeque<_> = all
            .chunks(size / 7 + 1)
            .map(|part| Frame::data(all.slice_ref(part)))
            .collect();
        if self == Self::Trailers {
            let mut trailers = HeaderMap::new();
            trailers.insert("checked", HeaderValue::from_static("yes"));
            frames.push_back(Frame::trailers(trailers));
        }
        Body::new(Frames {
            frames,
            knows_its_length: self == Self::ManyFrames,
        })
    }
}

/// A body of frames that are always ready.
struct Frames {
    frames: VecDeque<Frame<Bytes>>,
    knows_its_length: bool,
}

impl http_body::Body for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.frames.pop_front().map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.knows_its_length && self.frames.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        if !self.knows_its_length {
            return SizeHint::default();
        }
        let data = self.frames.iter().filter_map(Frame::data_ref);
        SizeHint::with_exact(data.map(|data| data.len() as u64).sum())
    }
}

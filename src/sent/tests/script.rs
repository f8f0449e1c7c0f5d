//! The app. It responds with the body of the request.

use std::{
    collections::VecDeque,
    convert::Infallible,
    future::{Ready, ready},
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::{Body, Frame, SizeHint};
use tower_service::Service;

use super::{
    super::{SentFuture, response::ResponseHandle},
    choices::Choices,
};
use crate::sync::lock;

/// A body with these frames.
pub(super) struct Script {
    pub(super) frames: VecDeque<Frame<Bytes>>,
    pub(super) knows_its_length: bool,
}

impl Script {
    pub(super) fn generate(choices: &mut Choices) -> (Self, usize) {
        let mut frames = VecDeque::new();
        let mut total = 0;
        for _ in 0..[0, 0, 1, 2, 3][choices.below(5)] {
            // Above and below the size up to which servers copy.
            let length = [0, 3, 17, 40][choices.below(4)];
            frames.push_back(Frame::data(Bytes::from(vec![0; length])));
            total += length;
        }
        let knows_its_length = choices.one_in(2);
        if !knows_its_length && choices.one_in(3) {
            frames.push_back(Frame::trailers(HeaderMap::new()));
        }
        let script = Self {
            frames,
            knows_its_length,
        };
        (script, total)
    }
}

impl Body for Script {
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

/// A service that responds with the script in the request.
#[derive(Clone)]
pub(super) struct Scripted(pub(super) Arc<Mutex<Option<ResponseHandle>>>);

impl Service<Request<Script>> for Scripted {
    type Response = Response<Script>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Script>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Script>) -> Self::Future {
        *lock(&self.0) = request.extensions_mut().remove::<ResponseHandle>();
        ready(Ok(Response::new(request.into_body())))
    }
}

pub(super) type Answer = Pin<Box<SentFuture<Ready<Result<Response<Script>, Infallible>>>>>;

//! The steps that both servers share: call the app, write, flush, and check the outcomes.

use std::{
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

use bytes::{Buf, Bytes};
use http::{Request, Version};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tower_layer::Layer;
use tower_service::Service;

use super::{
    super::{SentBody, SentBuf, SentIo, SentLayer, response::ResponseHandle},
    choices::Choices,
    oracle::{Byte, Expected, Oracle, SharedOracle},
    script::{Answer, Script, Scripted},
    transport::Transport,
};
use crate::sync::{MutexGuard, lock};

/// Bytes that the server has not written.
pub(super) enum Piece {
    Framing(usize, Bytes),
    /// An HTTP/2 frame of no response.
    Control(Bytes),
    Copied(usize, usize),
    /// A buffer of the response, and the number of its bytes in this piece.
    Buffer(usize, SentBuf<Bytes>, usize),
}

impl Piece {
    pub(super) fn remaining(&self) -> usize {
        match self {
            Self::Framing(_, bytes) | Self::Control(bytes) => bytes.len(),
            Self::Copied(_, length) | Self::Buffer(_, _, length) => *length,
        }
    }
}

pub(super) struct World {
    pub(super) choices: Choices,
    pub(super) oracle: SharedOracle,
    pub(super) io: Option<SentIo<Transport>>,
    pub(super) next_bytes: Arc<Mutex<Vec<Byte>>>,
    pub(super) flush_is_ready: Arc<Mutex<bool>>,
    pub(super) layer: SentLayer,
    pub(super) version: Version,
    pub(super) handles: Vec<ResponseHandle>,
}

pub(super) fn cx() -> Context<'static> {
    Context::from_waker(std::task::Waker::noop())
}

impl World {
    pub(super) fn new(choices: Choices, version: Version) -> Self {
        let oracle = SharedOracle::default();
        let next_bytes = Arc::default();
        let flush_is_ready = Arc::new(Mutex::new(true));
        let io = SentIo::new(Transport {
            oracle: oracle.clone(),
            next_bytes: Arc::clone(&next_bytes),
            flush_is_ready: flush_is_ready.clone(),
        });
        Self {
            choices,
            oracle,
            layer: io.layer(),
            io: Some(io),
            next_bytes,
            flush_is_ready,
            version,
            handles: Vec::new(),
        }
    }

    pub(super) fn oracle(&self) -> MutexGuard<'_, Oracle> {
        lock(&self.oracle)
    }

    /// Calls the app. Returns `None` if the request is dropped without a response.
    pub(super) fn answer(&mut self) -> Option<(usize, Pin<Box<SentBody<Script>>>)> {
        let (script, body_bytes) = Script::generate(&mut self.choices);
        let watched_from_start = self.choices.one_in(2);
        let (index, future) = self.ask(script, body_bytes, watched_from_start);
        if self.choices.one_in(12) {
            self.oracle().responses[index].may_abort = true;
            return None;
        }
        Some((index, Self::body(future)))
    }

    pub(super) fn ask(
        &mut self,
        script: Script,
        body_bytes: usize,
        watched_from_start: bool,
    ) -> (usize, Answer) {
        let index = self.handles.len();
        let given = Arc::default();
        let mut service = self.layer.layer(Scripted(Arc::clone(&given)));
        let mut request = Request::new(script);
        *request.version_mut() = self.version;
        let future = Box::pin(service.call(request));
        let handle = lock(&given).take().expect("the layer inserts the handle");
        self.handles.push(handle);
        self.oracle().responses.push(Expected {
            body_bytes,
            watched_from_start,
            ..Expected::default()
        });
        if watched_from_start {
            self.handles[index].watch();
        }
        (index, future)
    }

    pub(super) fn body(mut future: Answer) -> Pin<Box<SentBody<Script>>> {
        let Poll::Ready(Ok(response)) = future.as_mut().poll(&mut cx()) else {
            unreachable!("the app is never pending");
        };
        Box::pin(response.into_body())
    }

    /// Registers a waiter for a random response, possibly after its end.
    pub(super) fn wait_for_one(&mut self) {
        if self.handles.is_empty() {
            return;
        }
        let index = self.choices.below(self.handles.len());
        self.wait_for(index);
    }

    pub(super) fn wait_for(&mut self, index: usize) {
        if std::mem::replace(&mut self.oracle().responses[index].has_waiter, true) {
            return;
        }
        let oracle = self.oracle.clone();
        let is_http1 = self.version < Version::HTTP_2;
        self.handles[index].on_delivery(Box::new(move |outcome| {
            let mut oracle = lock(&oracle);
            let violation = oracle.violation_of(index, outcome, is_http1);
            oracle.violations.extend(
                violation.map(|violation| format!("{outcome:?} for response {index}: {violation}")),
            );
            oracle.responses[index].outcomes.push(outcome);
        }));
    }

    pub(super) fn begin_round(&mut self) {
        if let Some(io) = &mut self.io {
            let _ = Pin::new(io).poll_read(&mut cx(), &mut ReadBuf::new(&mut []));
        }
    }

    /// Writes a part of a piece and then consumes it, as servers do.
    pub(super) fn write(&mut self, piece: &mut Piece, whole: bool) {
        let most = piece.remaining();
        let count = if whole {
            most
        } else {
            1 + self.choices.below(most)
        };
        self.write_some(piece, count);
    }

    pub(super) fn write_some(&mut self, piece: &mut Piece, count: usize) {
        let (byte, bytes) = match piece {
            Piece::Framing(index, bytes) => (Byte::Framing(*index), bytes.split_to(count)),
            Piece::Control(bytes) => (Byte::Control, bytes.split_to(count)),
            Piece::Copied(index, _) | Piece::Buffer(index, _, _) => {
                (Byte::Body(*index), vec![b'x'; count].into())
            }
        };
        *lock(&self.next_bytes) = vec![byte; count];
        if let Some(io) = &mut self.io {
            let written = Pin::new(io).poll_write(&mut cx(), &bytes);
            assert!(matches!(written, Poll::Ready(Ok(written)) if written == count));
        }
        match piece {
            Piece::Framing(..) | Piece::Control(_) => {}
            Piece::Copied(_, length) => *length -= count,
            Piece::Buffer(_, buffer, length) => {
                buffer.advance(count);
                *length -= count;
            }
        }
    }

    pub(super) fn flush(&mut self, forced: bool) -> bool {
        let is_ready = forced || !self.choices.one_in(4);
        *lock(&self.flush_is_ready) = is_ready;
        if let Some(io) = &mut self.io {
            let _ = Pin::new(io).poll_flush(&mut cx());
        }
        is_ready
    }

    pub(super) fn framing(&mut self, index: usize, length: usize) -> Piece {
        self.oracle().responses[index].total_bytes += length;
        Piece::Framing(index, vec![b'x'; length].into())
    }

    /// The head of an HTTP/2 frame, whose payload has this length.
    pub(super) fn frame_head(&mut self, index: usize, kind: u8, length: usize) -> Piece {
        let length = u8::try_from(length).expect("short frames only");
        let head = Bytes::from(vec![0, 0, length, kind, 0, 0, 0, 0, 1]);
        self.oracle().responses[index].total_bytes += head.len();
        Piece::Framing(index, head)
    }

    pub(super) fn buffer(&mut self, index: usize, data: SentBuf<Bytes>) -> Piece {
        let length = data.remaining();
        let mut oracle = self.oracle();
        let expected = &mut oracle.responses[index];
        expected.total_bytes += length;
        expected.unwatched_bytes |= length > 0 && format!("{data:?}").contains("watched: false");
        drop(oracle);
        Piece::Buffer(index, data, length)
    }

    /// Copies a buffer chunk by chunk, as servers do.
    pub(super) fn copied(piece: Piece) -> Piece {
        match piece {
            Piece::Buffer(index, mut buffer, length) => {
                let mut left = length;
                while left > 0 {
                    let count = buffer.chunk().len().min(left);
                    buffer.advance(count);
                    left -= count;
                }
                Piece::Copied(index, length)
            }
            piece => piece,
        }
    }

    /// Registers waiters after the end. They must be called immediately, because no flush follows.
    pub(super) fn wait_for_all(&mut self) {
        for index in 0..self.handles.len() {
            self.wait_for(index);
        }
    }

    /// Checks that all waiters were called, except those of responses that `may_wait`.
    pub(super) fn assert_all_called(&self, may_wait: impl Fn(&Expected) -> bool) {
        assert_eq!(self.oracle().violations, Vec::<String>::new());
        for (index, expected) in self.oracle().responses.iter().enumerate() {
            let calls = expected.outcomes.len();
            if expected.has_waiter && !may_wait(expected) {
                assert_eq!(calls, 1, "response {index} while its connection is open");
            }
        }
    }

    /// Closes the connection, which calls the waiters that are left.
    pub(super) fn end(mut self) {
        for expected in &mut self.oracle().responses {
            expected.may_abort |= expected.outcomes.is_empty();
        }
        self.io = None;
        self.wait_for_all();
        assert_eq!(self.oracle().violations, Vec::<String>::new());
        for expected in &self.oracle().responses {
            assert_eq!(
                expected.outcomes.len(),
                1,
                "each waiter is called exactly once"
            );
        }
    }
}

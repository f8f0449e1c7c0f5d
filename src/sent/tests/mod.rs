//! Servers in miniature, in the orders of hyper's HTTP/1 and h2, against what was on the wire.
//!
//! The model is a list: every byte that the transport accepted, with the response that it belongs
//! to, and how many of them were flushed. Whatever the order of events, each waiter is called
//! exactly once, and told `Sent` only when that list says so.

use std::{
    collections::VecDeque,
    convert::Infallible,
    future::{Ready, ready},
    io,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

use bytes::{Buf, Bytes};
use http::{HeaderMap, Request, Response, Version};
use http_body::{Body, Frame, SizeHint};
use proptest::prelude::*;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tower_layer::Layer;
use tower_service::Service;

use super::{
    SentBody, SentBuf, SentFuture, SentIo, SentLayer,
    transmission::{Transmission, Transmitted},
};
use crate::{
    drain::tracker::Tracker,
    sync::{MutexGuard, lock},
};

/// The choices that a generated case makes, one after the other.
struct Choices(VecDeque<u8>);

impl Choices {
    /// Keeps some back for the end.
    fn split(mut choices: Vec<u8>) -> (Self, Self, usize) {
        let steps = choices.len() * 4 / 5;
        let endgame = choices.split_off(steps);
        (Self(choices.into()), Self(endgame.into()), steps)
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::from(self.0.pop_front().unwrap_or(0)) % limit
    }

    fn one_in(&mut self, chances: usize) -> bool {
        self.below(chances) == chances - 1
    }
}

/// One byte on the wire.
#[derive(Clone, Copy, PartialEq)]
enum Byte {
    Framing(usize),
    Body(usize),
}

/// The reference: what the transport has seen, and what became of each response.
#[derive(Default)]
struct Model {
    accepted: Vec<Byte>,
    flushed: usize,
    responses: Vec<Expected>,
    /// What a waiter was told that is not so. Waiters are called in destructors too, where a
    /// panic would end the process.
    lies: Vec<String>,
}

#[derive(Default)]
struct Expected {
    body_bytes: usize,
    watched_from_the_start: bool,
    has_waiter: bool,
    unwatched_bytes: bool,
    /// The server has nothing more of it, and all of it was handed to the connection.
    is_whole: bool,
    /// All that the server made of it, framing included.
    total_bytes: usize,
    /// The client reset it, its body was cut off, or there was none.
    may_abort: bool,
    told: Vec<Transmitted>,
}

impl Model {
    fn flushed_of(&self, matches: impl Fn(Byte) -> bool) -> usize {
        self.accepted[..self.flushed]
            .iter()
            .filter(|byte| matches(**byte))
            .count()
    }
}

impl Model {
    /// Why this can't be so, if it can't.
    fn contradicts(
        &self,
        index: usize,
        transmitted: Transmitted,
        is_http1: bool,
    ) -> Option<&'static str> {
        let expected = &self.responses[index];
        match transmitted {
            Transmitted::Sent { bytes } => {
                let body = self.flushed_of(|byte| byte == Byte::Body(index));
                let framing = self.flushed_of(|byte| byte == Byte::Framing(index));
                if bytes != expected.body_bytes as u64 {
                    return Some("a wrong count");
                }
                if is_http1 && !(expected.is_whole && body + framing == expected.total_bytes) {
                    return Some("the server has more of it");
                }
                if expected.watched_from_the_start && body != expected.body_bytes {
                    return Some("early by body bytes");
                }
                None
            }
            Transmitted::Aborted { bytes } => {
                if bytes > expected.body_bytes as u64 {
                    return Some("a wrong count");
                }
                (!expected.may_abort).then_some("nothing was wrong with it")
            }
        }
    }
}

type Shared = Arc<Mutex<Model>>;

/// Accepts as much as it is told to.
struct Transport {
    model: Shared,
    next_bytes: Arc<Mutex<Vec<Byte>>>,
    flush_is_ready: Arc<Mutex<bool>>,
}

impl AsyncRead for Transport {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Poll::Pending
    }
}

impl AsyncWrite for Transport {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut bytes = lock(&self.next_bytes);
        assert_eq!(bytes.len(), buf.len());
        lock(&self.model).accepted.append(&mut bytes);
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !*lock(&self.flush_is_ready) {
            return Poll::Pending;
        }
        let mut model = lock(&self.model);
        model.flushed = model.accepted.len();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// A body with these frames.
struct Script {
    frames: VecDeque<Frame<Bytes>>,
    knows_its_length: bool,
}

impl Script {
    fn generate(choices: &mut Choices) -> (Self, usize) {
        let mut frames = VecDeque::new();
        let mut total = 0;
        for _ in 0..[0, 0, 1, 2, 3][choices.below(5)] {
            // Above and below what the servers copy.
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

/// Answers with the script that the request carries.
#[derive(Clone)]
struct Scripted(Arc<Mutex<Option<Arc<Transmission>>>>);

impl Service<Request<Script>> for Scripted {
    type Response = Response<Script>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Script>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Script>) -> Self::Future {
        *lock(&self.0) = request.extensions_mut().remove::<Arc<Transmission>>();
        ready(Ok(Response::new(request.into_body())))
    }
}

type Answer = Pin<Box<SentFuture<Ready<Result<Response<Script>, Infallible>>>>>;

/// Bytes that the server has not written.
enum Piece {
    Framing(usize, usize),
    Copied(usize, usize),
    /// A buffer of the response, and how much of it goes out in this piece.
    Buffer(usize, SentBuf<Bytes>, usize),
}

impl Piece {
    fn remaining(&self) -> usize {
        match self {
            Self::Framing(_, length) | Self::Copied(_, length) | Self::Buffer(_, _, length) => {
                *length
            }
        }
    }
}

struct World {
    choices: Choices,
    model: Shared,
    io: Option<SentIo<Transport>>,
    next_bytes: Arc<Mutex<Vec<Byte>>>,
    flush_is_ready: Arc<Mutex<bool>>,
    layer: SentLayer,
    tracker: Arc<Tracker>,
    version: Version,
    transmissions: Vec<Arc<Transmission>>,
}

fn cx() -> Context<'static> {
    Context::from_waker(std::task::Waker::noop())
}

impl World {
    fn new(choices: Choices, version: Version) -> Self {
        let model = Shared::default();
        let next_bytes = Arc::default();
        let flush_is_ready = Arc::new(Mutex::new(true));
        let io = SentIo::new(Transport {
            model: model.clone(),
            next_bytes: Arc::clone(&next_bytes),
            flush_is_ready: flush_is_ready.clone(),
        });
        Self {
            choices,
            model,
            layer: io.layer(),
            io: Some(io),
            next_bytes,
            flush_is_ready,
            tracker: Arc::default(),
            version,
            transmissions: Vec::new(),
        }
    }

    fn model(&self) -> MutexGuard<'_, Model> {
        lock(&self.model)
    }

    /// A request comes in; its response, if it gets one.
    fn answer(&mut self) -> Option<(usize, Pin<Box<SentBody<Script>>>)> {
        let (script, body_bytes) = Script::generate(&mut self.choices);
        let watched_from_the_start = self.choices.one_in(2);
        let (index, future) = self.ask(script, body_bytes, watched_from_the_start);
        if self.choices.one_in(12) {
            self.model().responses[index].may_abort = true;
            return None;
        }
        Some((index, Self::body(future)))
    }

    fn ask(
        &mut self,
        script: Script,
        body_bytes: usize,
        watched_from_the_start: bool,
    ) -> (usize, Answer) {
        let index = self.transmissions.len();
        let given = Arc::default();
        let mut service = self.layer.layer(Scripted(Arc::clone(&given)));
        let mut request = Request::new(script);
        *request.version_mut() = self.version;
        let future = Box::pin(service.call(request));
        let transmission = lock(&given).take().expect("the layer has put it there");
        self.transmissions.push(transmission);
        self.model().responses.push(Expected {
            body_bytes,
            watched_from_the_start,
            ..Expected::default()
        });
        if watched_from_the_start {
            self.transmissions[index].watch(&self.tracker);
        }
        (index, future)
    }

    fn body(mut future: Answer) -> Pin<Box<SentBody<Script>>> {
        let Poll::Ready(Ok(response)) = future.as_mut().poll(&mut cx()) else {
            unreachable!("it is ready");
        };
        Box::pin(response.into_body())
    }

    /// Somebody waits for a response, early, late or much too late.
    fn wait_for_one(&mut self) {
        if self.transmissions.is_empty() {
            return;
        }
        let index = self.choices.below(self.transmissions.len());
        self.wait_for(index);
    }

    fn wait_for(&mut self, index: usize) {
        if std::mem::replace(&mut self.model().responses[index].has_waiter, true) {
            return;
        }
        let model = self.model.clone();
        let is_http1 = self.version < Version::HTTP_2;
        self.transmissions[index].when_over(Box::new(move |transmitted| {
            let mut model = lock(&model);
            let lie = model.contradicts(index, transmitted, is_http1);
            model
                .lies
                .extend(lie.map(|lie| format!("{transmitted:?} for response {index}: {lie}")));
            model.responses[index].told.push(transmitted);
        }));
    }

    fn begin_round(&mut self) {
        if let Some(io) = &mut self.io {
            let _ = Pin::new(io).poll_read(&mut cx(), &mut ReadBuf::new(&mut []));
        }
    }

    /// Writes some of a piece, and consumes it as servers do: after the write.
    fn write(&mut self, piece: &mut Piece, whole: bool) {
        let most = piece.remaining();
        let count = if whole {
            most
        } else {
            1 + self.choices.below(most)
        };
        let byte = match piece {
            Piece::Framing(index, _) => Byte::Framing(*index),
            Piece::Copied(index, _) | Piece::Buffer(index, _, _) => Byte::Body(*index),
        };
        *lock(&self.next_bytes) = vec![byte; count];
        if let Some(io) = &mut self.io {
            let written = Pin::new(io).poll_write(&mut cx(), &vec![0; count]);
            assert!(matches!(written, Poll::Ready(Ok(written)) if written == count));
        }
        match piece {
            Piece::Framing(_, length) | Piece::Copied(_, length) => *length -= count,
            Piece::Buffer(_, buffer, length) => {
                buffer.advance(count);
                *length -= count;
            }
        }
    }

    fn flush(&mut self, for_sure: bool) -> bool {
        let is_ready = for_sure || !self.choices.one_in(4);
        *lock(&self.flush_is_ready) = is_ready;
        if let Some(io) = &mut self.io {
            let _ = Pin::new(io).poll_flush(&mut cx());
        }
        is_ready
    }

    fn framing(&mut self, index: usize, length: usize) -> Piece {
        self.model().responses[index].total_bytes += length;
        Piece::Framing(index, length)
    }

    fn buffer(&mut self, index: usize, data: SentBuf<Bytes>) -> Piece {
        let length = data.remaining();
        let mut model = self.model();
        let expected = &mut model.responses[index];
        expected.total_bytes += length;
        expected.unwatched_bytes |= length > 0 && format!("{data:?}").contains("watched: false");
        drop(model);
        Piece::Buffer(index, data, length)
    }

    /// As a server copies: chunk by chunk.
    fn copied(piece: Piece) -> Piece {
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

    /// Whoever comes when all is over is told at once: no other flush will come.
    fn wait_for_all(&mut self) {
        for index in 0..self.transmissions.len() {
            self.wait_for(index);
        }
    }

    /// Every response with a reason to be over, and a connection that was flushed, has told.
    fn assert_all_told(&self, may_wait: impl Fn(&Expected) -> bool) {
        assert_eq!(self.model().lies, Vec::<String>::new());
        for (index, expected) in self.model().responses.iter().enumerate() {
            let told = expected.told.len();
            if expected.has_waiter && !may_wait(expected) {
                assert_eq!(told, 1, "response {index} while its connection is open");
            }
        }
    }

    /// The connection goes, and whoever has not been told is.
    fn end(mut self) {
        for expected in &mut self.model().responses {
            expected.may_abort |= expected.told.is_empty();
        }
        self.io = None;
        self.wait_for_all();
        assert_eq!(self.model().lies, Vec::<String>::new());
        for expected in &self.model().responses {
            assert_eq!(expected.told.len(), 1, "each waiter is called exactly once");
        }
    }
}

/// hyper's HTTP/1: one response after the other; flushes only when it has nothing to write.
fn http1(choices: Vec<u8>) {
    let (choices, _, steps) = Choices::split(choices);
    let mut world = World::new(choices, Version::HTTP_11);
    let mut buffered: VecDeque<Piece> = VecDeque::new();
    let mut current: Option<(usize, Pin<Box<SentBody<Script>>>)> = None;
    let copies = world.choices.one_in(2);
    let lifetime = if world.choices.one_in(3) {
        world.choices.below(60)
    } else {
        usize::MAX
    };
    let mut is_last = false;
    for step in 0.. {
        is_last |= step >= steps;
        if is_last && current.is_none() && buffered.is_empty() {
            break;
        }
        if step == lifetime {
            for expected in &mut world.model().responses {
                expected.may_abort |= expected.told.is_empty();
            }
            // hyper drops the body, what it has buffered, and the IO, in an order of its own.
            if world.choices.one_in(2) {
                world.io = None;
            }
            drop(buffered);
            drop(current);
            return world.end();
        }
        let action = if is_last {
            if current.is_some() { 1 } else { 2 }
        } else {
            world.choices.below(5)
        };
        match action {
            0 if current.is_none() => {
                world.begin_round();
                let Some((index, body)) = world.answer() else {
                    // Without a response hyper closes the connection.
                    is_last = true;
                    continue;
                };
                let head = world.framing(index, 5);
                buffered.push_back(head);
                // hyper won't poll a body whose length is 0, frames or not.
                if body.is_end_stream() || body.size_hint().exact() == Some(0) {
                    world.model().responses[index].is_whole = true;
                } else {
                    current = Some((index, body));
                }
            }
            1 => {
                let Some((index, mut body)) = current.take() else {
                    continue;
                };
                let is_chunked = body.size_hint().exact().is_none();
                if !is_last && world.choices.one_in(30) {
                    // As when the body errs.
                    world.model().responses[index].may_abort = true;
                    is_last = true;
                    continue;
                }
                let Poll::Ready(polled) = body.as_mut().poll_frame(&mut cx()) else {
                    unreachable!("the script never waits");
                };
                match polled.map(|frame| frame.map(Frame::into_data)) {
                    Some(Ok(Ok(data))) => {
                        let eos = body.is_end_stream();
                        let is_over = eos || body.size_hint().exact() == Some(0);
                        if data.has_remaining() {
                            if is_chunked {
                                let size = world.framing(index, 2);
                                buffered.push_back(size);
                            }
                            let piece = world.buffer(index, data);
                            buffered.push_back(if copies { World::copied(piece) } else { piece });
                        }
                        if is_over {
                            world.model().responses[index].is_whole = true;
                        } else {
                            current = Some((index, body));
                        }
                    }
                    Some(Ok(Err(_))) | None => {
                        let end = world.framing(index, 3);
                        buffered.push_back(end);
                        world.model().responses[index].is_whole = true;
                    }
                    Some(Err(error)) => match error {},
                }
            }
            2 => {
                if let Some(mut piece) = buffered.pop_front() {
                    world.write(&mut piece, is_last);
                    if piece.remaining() > 0 {
                        buffered.push_front(piece);
                    }
                } else {
                    world.flush(false);
                }
            }
            3 => {
                if buffered.is_empty() {
                    world.flush(false);
                }
            }
            _ => world.wait_for_one(),
        }
    }
    world.flush(true);
    world.assert_all_told(|_| false);
    world.wait_for_all();
    world.assert_all_told(|_| false);
    world.end();
}

/// One stream of h2.
struct Stream {
    index: usize,
    body: Option<Pin<Box<SentBody<Script>>>>,
    has_head: bool,
    /// What comes next from the body's task, which has polled and not yet queued.
    in_hand: Option<(Piece, bool)>,
    queue: VecDeque<Piece>,
    was_reset: bool,
    is_over: bool,
}

/// h2: bodies are polled by tasks of their own, at any time; the connection's task reads, then
/// takes from the queues, writes, flushes, and keeps what it has written for a while.
struct Http2 {
    world: World,
    streams: Vec<Stream>,
    codec: VecDeque<Piece>,
    in_flight: Option<(usize, Piece)>,
    /// The last frame that was written, whose buffer h2 has not let go of.
    written: Option<(usize, SentBuf<Bytes>, bool)>,
    /// It could not take all that was there before it was written out.
    codec_was_full: bool,
    phase: Phase,
}

#[derive(Clone, Copy, PartialEq)]
enum Phase {
    Idle,
    Taking,
    Writing,
    Flushing,
}

impl Http2 {
    fn accept(&mut self) {
        if let Some((index, body)) = self.world.answer() {
            self.streams.push(Stream {
                index,
                body: Some(body),
                has_head: false,
                in_hand: None,
                queue: VecDeque::new(),
                was_reset: false,
                is_over: false,
            });
        }
    }

    fn finish_streams(&mut self) {
        for at in 0..self.streams.len() {
            while !self.streams[at].is_over {
                self.stream_step(at);
            }
        }
    }

    /// One step of the task of a stream.
    fn stream_step(&mut self, at: usize) {
        let world = &mut self.world;
        let stream = &mut self.streams[at];
        if stream.is_over {
            return;
        }
        let index = stream.index;
        let Some(body) = &mut stream.body else {
            stream.is_over = true;
            return;
        };
        if let Some((piece, is_end)) = stream.in_hand.take() {
            // A reset stream takes nothing, and what was for it is dropped.
            if !stream.was_reset {
                stream.queue.push_back(piece);
            }
            if is_end || stream.was_reset {
                world.model().responses[index].is_whole = !stream.was_reset;
                stream.body = None;
            }
        } else if !stream.has_head {
            stream.has_head = true;
            let is_end = body.is_end_stream();
            stream.in_hand = Some((world.framing(index, 9), is_end));
        } else if stream.was_reset {
            stream.body = None;
        } else {
            let Poll::Ready(polled) = body.as_mut().poll_frame(&mut cx()) else {
                unreachable!("the script never waits");
            };
            stream.in_hand = Some(match polled.map(|frame| frame.map(Frame::into_data)) {
                Some(Ok(Ok(data))) => {
                    let is_end = body.is_end_stream();
                    if data.has_remaining() {
                        (world.buffer(index, data), is_end)
                    } else {
                        (world.framing(index, 9), is_end)
                    }
                }
                Some(Ok(Err(_))) | None => (world.framing(index, 9), true),
                Some(Err(error)) => match error {},
            });
        }
    }

    /// One step of the connection's task.
    fn connection_step(&mut self, to_the_end: bool) {
        match self.phase {
            Phase::Idle => {
                self.begin_round(to_the_end);
                self.phase = Phase::Taking;
            }
            Phase::Taking => {
                self.reclaim();
                self.codec_was_full = false;
                // Flow control holds data back now and then; the other frames it can't.
                let holds_data_back = !to_the_end && self.world.choices.one_in(3);
                let may_go = |piece: &Piece| match piece {
                    Piece::Buffer(..) => !holds_data_back,
                    Piece::Framing(..) | Piece::Copied(..) => true,
                };
                let ready: Vec<_> = (0..self.streams.len())
                    .filter(|at| self.streams[*at].queue.front().is_some_and(may_go))
                    .collect();
                if ready.is_empty() {
                    self.phase = Phase::Writing;
                    return;
                }
                let at = ready[self.world.choices.below(ready.len())];
                let Some(piece) = self.streams[at].queue.pop_front() else {
                    return;
                };
                self.take(at, piece);
            }
            Phase::Writing if !to_the_end && self.world.choices.one_in(6) => {
                // The transport takes no more for now, and the task is woken for another round.
                self.begin_round(to_the_end);
                if self.in_flight.is_none() {
                    self.phase = Phase::Taking;
                }
            }
            Phase::Writing => {
                let world = &mut self.world;
                if let Some(mut piece) = self.codec.pop_front() {
                    world.write(&mut piece, to_the_end);
                    if piece.remaining() > 0 {
                        self.codec.push_front(piece);
                    }
                } else if let Some((at, mut piece)) = self.in_flight.take() {
                    world.write(&mut piece, to_the_end);
                    if piece.remaining() > 0 {
                        self.in_flight = Some((at, piece));
                    } else if let Piece::Buffer(_, buffer, _) = piece {
                        let was_reset = self.streams[at].was_reset;
                        self.written = Some((at, buffer, was_reset));
                    }
                } else {
                    self.phase = Phase::Flushing;
                }
            }
            Phase::Flushing => {
                let is_flushed = self.world.flush(to_the_end);
                // What did not fit, or is left of a buffer, goes on in the same round.
                let goes_on = is_flushed && (self.codec_was_full || self.reclaim());
                self.phase = if goes_on { Phase::Taking } else { Phase::Idle };
            }
        }
    }

    /// Reads, which is how the connection learns of resets.
    fn begin_round(&mut self, to_the_end: bool) {
        self.world.begin_round();
        if !to_the_end && !self.streams.is_empty() && self.world.choices.one_in(8) {
            let at = self.world.choices.below(self.streams.len());
            self.reset(at);
        }
    }

    fn take(&mut self, at: usize, piece: Piece) {
        let index = self.streams[at].index;
        match piece {
            Piece::Buffer(_, buffer, length) if length >= 16 => {
                let head = self.world.framing(index, 9);
                self.codec.push_back(head);
                let now = 1 + self.world.choices.below(length);
                self.in_flight = Some((at, Piece::Buffer(index, buffer, now)));
                self.codec_was_full = true;
                self.phase = Phase::Writing;
            }
            Piece::Buffer(..) => {
                let head = self.world.framing(index, 9);
                self.codec.push_back(head);
                self.codec.push_back(World::copied(piece));
            }
            piece => self.codec.push_back(piece),
        }
    }

    /// Lets go of the last buffer, or puts its rest back in front of its queue.
    fn reclaim(&mut self) -> bool {
        let Some((at, buffer, was_reset)) = self.written.take() else {
            return false;
        };
        let length = buffer.remaining();
        if length == 0 || was_reset || self.streams[at].was_reset {
            return false;
        }
        let index = self.streams[at].index;
        self.streams[at]
            .queue
            .push_front(Piece::Buffer(index, buffer, length));
        true
    }

    /// Until the queues are empty, and two rounds more: a reset stream may need them.
    fn finish_rounds(&mut self) {
        let mut rounds_to_go = 3;
        while rounds_to_go > 0 {
            self.connection_step(true);
            let is_idle = self.phase == Phase::Idle;
            if is_idle && self.streams.iter().all(|stream| stream.queue.is_empty()) {
                rounds_to_go -= 1;
            }
        }
    }

    /// The tasks of the streams may outlive the connection's, or not.
    fn end(self) {
        let Self {
            world,
            streams,
            codec,
            in_flight,
            written,
            ..
        } = self;
        drop((codec, in_flight, written));
        drop(streams);
        world.end();
    }

    fn reset(&mut self, at: usize) {
        let stream = &mut self.streams[at];
        stream.was_reset = true;
        self.world.model().responses[stream.index].may_abort = true;
        stream.queue.clear();
    }
}

fn http2(choices: Vec<u8>) {
    let (choices, endgame, steps) = Choices::split(choices);
    let mut world = World::new(choices, Version::HTTP_2);
    let lifetime = if world.choices.one_in(3) {
        world.choices.below(120)
    } else {
        usize::MAX
    };
    let mut server = Http2 {
        world,
        streams: Vec::new(),
        codec: VecDeque::new(),
        in_flight: None,
        written: None,
        codec_was_full: false,
        phase: Phase::Idle,
    };
    for step in 0..steps {
        if step == lifetime {
            for expected in &mut server.world.model().responses {
                expected.may_abort |= expected.told.is_empty();
            }
            if server.world.choices.one_in(2) {
                server.world.io = None;
            }
            return server.end();
        }
        match server.world.choices.below(7) {
            0 => server.accept(),
            1 | 2 if !server.streams.is_empty() => {
                let at = server.world.choices.below(server.streams.len());
                server.stream_step(at);
            }
            3 => server.world.wait_for_one(),
            _ => server.connection_step(false),
        }
    }
    // All that is under way is written. Then come a few more, after which nothing follows that
    // could hide that one of them still waits.
    server.finish_streams();
    server.finish_rounds();
    server.world.choices = endgame;
    let before = server.streams.len();
    for _ in 0..1 + server.world.choices.below(2) {
        server.accept();
    }
    for at in before..server.streams.len() {
        for _ in 0..server.world.choices.below(10) {
            server.stream_step(at);
        }
        if server.world.choices.one_in(3) {
            server.reset(at);
        }
    }
    server.finish_streams();
    server.finish_rounds();
    // h2 drops what a reset stream had queued unseen. Where frames of it were not watched, only
    // the next bytes of the connection tell.
    let may_wait = |expected: &Expected| expected.may_abort && expected.unwatched_bytes;
    server.world.assert_all_told(may_wait);
    server.world.wait_for_all();
    server.world.assert_all_told(may_wait);
    server.end();
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn over_http1_each_waiter_is_told_once_and_the_truth(
        choices in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        http1(choices);
    }

    #[test]
    fn over_http2_each_waiter_is_told_once_and_the_truth(
        choices in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        http2(choices);
    }
}

/// A response with data frames of these lengths, which add up to the length that it declares.
fn answering<const FRAMES: usize>(
    version: Version,
    lengths: [usize; FRAMES],
    watched_from_the_start: bool,
) -> (World, usize, Pin<Box<SentBody<Script>>>) {
    let mut world = World::new(Choices(VecDeque::new()), version);
    let script = Script {
        frames: lengths
            .map(|length| Frame::data(Bytes::from(vec![0; length])))
            .into(),
        knows_its_length: true,
    };
    let (index, future) = world.ask(script, lengths.iter().sum(), watched_from_the_start);
    if watched_from_the_start {
        world.wait_for(index);
    }
    (world, index, World::body(future))
}

fn data_of(body: &mut Pin<Box<SentBody<Script>>>) -> SentBuf<Bytes> {
    let Poll::Ready(Some(Ok(frame))) = body.as_mut().poll_frame(&mut cx()) else {
        unreachable!("the script has a frame");
    };
    let Ok(data) = frame.into_data() else {
        unreachable!("it is data");
    };
    data
}

#[test]
fn who_takes_the_bytes_out_of_a_buffer_has_consumed_it() {
    let (mut world, index, mut body) = answering(Version::HTTP_11, [40], true);
    let mut data = data_of(&mut body);
    drop(body);
    let mut piece = world.framing(index, 5);
    world.model().responses[index].is_whole = true;
    for part in [30, 10] {
        assert_eq!(data.copy_to_bytes(part), vec![0; part]);
        world.model().responses[index].total_bytes += part;
        world.write(&mut Piece::Copied(index, part), true);
    }
    assert!(!data.has_remaining());
    drop(data);
    world.write(&mut piece, true);
    world.flush(true);
    world.assert_all_told(|_| false);
    world.end();
}

#[test]
fn who_waits_after_the_last_byte_of_an_http1_body_was_flushed_is_told_at_once() {
    let (mut world, index, mut body) = answering(Version::HTTP_11, [40], false);
    let mut head = world.framing(index, 5);
    world.write(&mut head, true);
    world.flush(true);
    let data = data_of(&mut body);
    let mut piece = world.buffer(index, data);
    drop(body);
    world.model().responses[index].is_whole = true;
    world.write(&mut piece, true);
    world.flush(true);
    world.wait_for_all();
    world.assert_all_told(|_| false);
    world.end();
}

/// All of the declared length is there, and yet the body goes on: over HTTP/2 it is polled until
/// it says that it is over, so a reset may come in between.
#[test]
fn a_reset_behind_the_last_byte_is_no_flush_of_what_h2_has_copied() {
    for empty_frame_is_polled in [false, true] {
        let (mut world, index, mut body) = answering(Version::HTTP_2, [3, 0], true);
        let data = data_of(&mut body);
        let frame = world.buffer(index, data);
        if empty_frame_is_polled {
            drop(data_of(&mut body));
        }
        // Something else goes out, and is flushed.
        let mut head = world.framing(index, 9);
        world.write(&mut head, true);
        world.flush(true);
        let mut copied = World::copied(frame);
        world.model().responses[index].may_abort = true;
        drop(body);
        world.assert_all_told(|_| true);
        assert_eq!(world.model().responses[index].told, []);
        world.write(&mut copied, true);
        world.flush(true);
        assert_eq!(
            world.model().responses[index].told,
            [Transmitted::Sent { bytes: 3 }]
        );
        world.end();
    }
}

#[test]
fn a_reset_behind_a_last_byte_that_was_flushed_leaves_nothing_to_wait_for() {
    let (mut world, index, mut body) = answering(Version::HTTP_2, [40, 0], true);
    let data = data_of(&mut body);
    let mut frame = world.buffer(index, data);
    world.write(&mut frame, true);
    world.flush(true);
    world.model().responses[index].may_abort = true;
    drop(body);
    assert_eq!(
        world.model().responses[index].told,
        [Transmitted::Sent { bytes: 40 }]
    );
    world.end();
}

#[test]
fn what_went_by_unwatched_counts_in_a_response_that_is_cut_off() {
    let (mut world, index, mut body) = answering(Version::HTTP_11, [40, 3], false);
    drop((data_of(&mut body), body));
    world.model().responses[index].may_abort = true;
    world.wait_for_all();
    assert_eq!(
        world.model().responses[index].told,
        [Transmitted::Aborted { bytes: 40 }]
    );
    world.end();
}

#[test]
fn it_writes_several_buffers_at_once_if_the_transport_does() {
    let (vectored, _client) = tokio::io::duplex(8);
    assert!(vectored.is_write_vectored() && SentIo::new(vectored).is_write_vectored());
    let world = World::new(Choices(VecDeque::new()), Version::HTTP_11);
    assert!(world.io.is_some_and(|io| !io.is_write_vectored()));
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_reaches_the_transport() {
    let (mut client, server) = tokio::io::duplex(8);
    let mut io = SentIo::new(server);
    io.write_all(b"hello").await.unwrap();
    io.shutdown().await.unwrap();
    let mut received = Vec::new();
    let end = client.read_to_end(&mut received);
    tokio::time::timeout(std::time::Duration::from_secs(60), end)
        .await
        .expect("the end comes before the connection is dropped")
        .unwrap();
    assert_eq!(received, b"hello");
    drop(io);
}

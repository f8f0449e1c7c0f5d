//! A server like h2.

use std::{collections::VecDeque, pin::Pin, task::Poll};

use bytes::{Buf, Bytes};
use http::Version;
use http_body::{Body, Frame};

use super::{
    super::{SentBody, SentBuf},
    choices::Choices,
    oracle::Expected,
    script::Script,
    world::{Piece, World, cx},
};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PONG: &[u8] = &[0, 0, 8, 6, 1, 0, 0, 0, 0, 7, 7, 7, 7, 7, 7, 7, 7];

/// One stream of h2.
struct Stream {
    index: usize,
    body: Option<Pin<Box<SentBody<Script>>>>,
    has_head: bool,
    /// The next piece, which the body's task has polled and not yet queued.
    polled: Option<(Piece, bool)>,
    queue: VecDeque<Piece>,
    was_reset: bool,
    is_over: bool,
}

/// A server that polls each body on a task of its own. The connection's task reads, takes frames from
/// the queues, writes, and flushes. It releases the last written buffer later.
struct Http2 {
    world: World,
    streams: Vec<Stream>,
    codec: VecDeque<Piece>,
    in_flight: Option<(usize, Piece)>,
    /// The last frame that was written, whose buffer h2 has not released.
    written: Option<(usize, SentBuf<Bytes>, bool)>,
    /// The codec had no capacity for all queued frames.
    codec_was_full: bool,
    phase: Phase,
    /// Resets that the connection has not read.
    arrived: Vec<usize>,
    /// The connection's task was woken, because something was queued, arrived, or was dropped.
    is_woken: bool,
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
                polled: None,
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

    /// Performs one step of the task of a stream.
    fn stream_step(&mut self, at: usize) {
        let world = &mut self.world;
        let stream = &mut self.streams[at];
        if stream.is_over {
            return;
        }
        let index = stream.index;
        let Some(body) = &mut stream.body else {
            stream.is_over = true;
            // h2 wakes the connection when the last reference to a closed stream is dropped.
            self.is_woken = true;
            return;
        };
        if let Some((piece, is_end)) = stream.polled.take() {
            // A reset stream drops its frames.
            if !stream.was_reset {
                stream.queue.push_back(piece);
                self.is_woken = true;
            }
            if is_end || stream.was_reset {
                world.oracle().responses[index].is_whole = !stream.was_reset;
                stream.body = None;
            }
        } else if !stream.has_head {
            stream.has_head = true;
            let is_end = body.is_end_stream();
            stream.polled = Some((world.frame_head(index, HEADERS, 0), is_end));
        } else if stream.was_reset {
            stream.body = None;
        } else {
            let Poll::Ready(polled) = body.as_mut().poll_frame(&mut cx()) else {
                unreachable!("the script is never pending");
            };
            stream.polled = Some(match polled.map(|frame| frame.map(Frame::into_data)) {
                Some(Ok(Ok(data))) => {
                    let is_end = body.is_end_stream();
                    if data.has_remaining() {
                        (world.buffer(index, data), is_end)
                    } else {
                        (world.frame_head(index, DATA, 0), is_end)
                    }
                }
                Some(Ok(Err(_))) | None => (world.frame_head(index, HEADERS, 0), true),
                Some(Err(error)) => match error {},
            });
        }
    }

    /// Performs one step of the connection's task.
    fn connection_step(&mut self, forced: bool) {
        match self.phase {
            Phase::Idle => {
                self.begin_round(forced);
                self.phase = Phase::Taking;
            }
            Phase::Taking => {
                self.reclaim();
                self.codec_was_full = false;
                // Flow control applies to data only.
                let holds_data_back = !forced && self.world.choices.one_in(3);
                let may_be_sent = |piece: &Piece| match piece {
                    Piece::Buffer(..) => !holds_data_back,
                    Piece::Framing(..) | Piece::Control(_) | Piece::Copied(..) => true,
                };
                let ready: Vec<_> = (0..self.streams.len())
                    .filter(|at| self.streams[*at].queue.front().is_some_and(may_be_sent))
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
            Phase::Writing if !forced && self.world.choices.one_in(6) => {
                // The transport is not ready, and the task is woken for another round.
                self.begin_round(forced);
                if self.in_flight.is_none() {
                    self.phase = Phase::Taking;
                }
            }
            Phase::Writing => {
                let world = &mut self.world;
                if let Some(mut piece) = self.codec.pop_front() {
                    world.write(&mut piece, forced);
                    if piece.remaining() > 0 {
                        self.codec.push_front(piece);
                    }
                } else if let Some((at, mut piece)) = self.in_flight.take() {
                    world.write(&mut piece, forced);
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
                let is_flushed = self.world.flush(forced);
                // Frames that did not fit, and the rest of a buffer, continue in the same round.
                let continues = is_flushed && (self.codec_was_full || self.reclaim());
                self.is_woken |= !is_flushed;
                self.phase = if continues {
                    Phase::Taking
                } else {
                    Phase::Idle
                };
            }
        }
    }

    /// Reads from the connection, which applies resets.
    fn begin_round(&mut self, forced: bool) {
        self.is_woken = false;
        self.world.begin_round();
        if !forced && !self.streams.is_empty() && self.world.choices.one_in(8) {
            let at = self.world.choices.below(self.streams.len());
            self.reset(at);
        }
        for at in std::mem::take(&mut self.arrived) {
            self.reset(at);
        }
        // h2 acknowledges a ping before it looks at the queues, unless it is writing a frame.
        if self.in_flight.is_none() && self.world.choices.one_in(4) {
            self.codec
                .push_back(Piece::Control(Bytes::from_static(PONG)));
        }
    }

    fn take(&mut self, at: usize, piece: Piece) {
        let index = self.streams[at].index;
        match piece {
            Piece::Buffer(_, buffer, length) if length >= 16 => {
                let now = 1 + self.world.choices.below(length);
                let head = self.world.frame_head(index, DATA, now);
                self.codec.push_back(head);
                self.in_flight = Some((at, Piece::Buffer(index, buffer, now)));
                self.codec_was_full = true;
                self.phase = Phase::Writing;
            }
            Piece::Buffer(_, _, length) => {
                let head = self.world.frame_head(index, DATA, length);
                self.codec.push_back(head);
                self.codec.push_back(World::copied(piece));
            }
            piece => self.codec.push_back(piece),
        }
    }

    /// Releases the last buffer, or returns its rest to the front of its queue.
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

    /// Runs the connection's task until nothing wakes it.
    fn finish_rounds(&mut self) {
        // An opened window also wakes it.
        self.is_woken |= self.streams.iter().any(|stream| !stream.queue.is_empty());
        while self.is_woken || self.phase != Phase::Idle {
            self.connection_step(true);
        }
    }

    /// Drops the connection's frames, then the tasks of the streams.
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
        self.world.oracle().responses[stream.index].may_abort = true;
        stream.queue.clear();
    }
}

pub(super) fn http2(choices: Vec<u8>) {
    let (choices, final_choices, steps) = Choices::split(choices);
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
        arrived: Vec::new(),
        is_woken: false,
    };
    for step in 0..steps {
        if step == lifetime {
            for expected in &mut server.world.oracle().responses {
                expected.may_abort |= expected.outcomes.is_empty();
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
    // Writes all that is pending, then a few last responses. No bytes follow that could hide a lost
    // wake-up.
    server.finish_streams();
    server.finish_rounds();
    server.world.choices = final_choices;
    let before = server.streams.len();
    for _ in 0..1 + server.world.choices.below(2) {
        server.accept();
    }
    for at in before..server.streams.len() {
        for _ in 0..server.world.choices.below(10) {
            server.stream_step(at);
        }
        // A part of the response may be written before the reset.
        for _ in 0..server.world.choices.below(8) {
            server.connection_step(false);
        }
        if server.world.choices.one_in(3) {
            server.arrived.push(at);
            server.is_woken = true;
        }
    }
    server.finish_rounds();
    server.finish_streams();
    server.finish_rounds();
    // h2 silently discards the queued frames of a reset stream. If some were not watched, only the next
    // bytes of the connection decide.
    let may_wait = |expected: &Expected| expected.may_abort && expected.unwatched_bytes;
    server.world.assert_all_called(may_wait);
    server.world.wait_for_all();
    server.world.assert_all_called(may_wait);
    server.end();
}

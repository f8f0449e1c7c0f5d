//! A server like hyper's HTTP/1.

use std::{collections::VecDeque, pin::Pin, task::Poll};

use bytes::Buf;
use http::Version;
use http_body::{Body, Frame};

use super::{
    super::SentBody,
    choices::Choices,
    script::Script,
    world::{Piece, World, cx},
};

/// Serves one response after the other, and flushes only if there is nothing to write.
pub(super) fn http1(choices: Vec<u8>) {
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
            for expected in &mut world.oracle().responses {
                expected.may_abort |= expected.outcomes.is_empty();
            }
            // hyper drops the body, its buffers, and the IO in an unspecified order.
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
                    // Without a response, hyper closes the connection.
                    is_last = true;
                    continue;
                };
                let head = world.framing(index, 5);
                buffered.push_back(head);
                // hyper does not poll a body whose length is 0, even if it has frames.
                if body.is_end_stream() || body.size_hint().exact() == Some(0) {
                    world.oracle().responses[index].is_whole = true;
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
                    // The body returns an error.
                    world.oracle().responses[index].may_abort = true;
                    is_last = true;
                    continue;
                }
                let Poll::Ready(polled) = body.as_mut().poll_frame(&mut cx()) else {
                    unreachable!("the script is never pending");
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
                            world.oracle().responses[index].is_whole = true;
                        } else {
                            current = Some((index, body));
                        }
                    }
                    Some(Ok(Err(_))) | None => {
                        let end = world.framing(index, 3);
                        buffered.push_back(end);
                        world.oracle().responses[index].is_whole = true;
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
    world.assert_all_called(|_| false);
    world.wait_for_all();
    world.assert_all_called(|_| false);
    world.end();
}

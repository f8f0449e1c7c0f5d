//! Small servers that work in the orders of hyper's HTTP/1 and h2, checked against an oracle.
//!
//! The oracle is a list of all bytes that the transport accepted, each with its response, and the
//! number of flushed bytes. In every order of events, each waiter is called exactly once, and with
//! `Flushed` only if the list agrees.

use std::{collections::VecDeque, pin::Pin, task::Poll};

use bytes::{Buf, Bytes};
use http::Version;
use http_body::{Body, Frame};
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};

use self::{
    choices::Choices,
    http1::http1,
    http2::http2,
    script::Script,
    world::{Piece, World, cx},
};
use super::{SentBody, SentBuf, SentIo, delivery::DeliveryOutcome};

mod choices;
mod http1;
mod http2;
mod oracle;
mod script;
mod transport;
mod world;

#[test]
fn http1_waiters_get_the_outcome_once() {
    choices::any(200, http1);
}

#[test]
fn http2_waiters_get_the_outcome_once() {
    choices::any(300, http2);
}

/// Creates a response with data frames of these lengths, whose sum is its declared length.
fn respond<const FRAMES: usize>(
    version: Version,
    lengths: [usize; FRAMES],
    watched_from_start: bool,
) -> (World, usize, Pin<Box<SentBody<Script>>>) {
    let mut world = World::new(Choices(VecDeque::new()), version);
    let script = Script {
        frames: lengths
            .map(|length| Frame::data(Bytes::from(vec![0; length])))
            .into(),
        knows_its_length: true,
    };
    let (index, future) = world.ask(script, lengths.iter().sum(), watched_from_start);
    if watched_from_start {
        world.wait_for(index);
    }
    (world, index, World::body(future))
}

fn data_of(body: &mut Pin<Box<SentBody<Script>>>) -> SentBuf<Bytes> {
    let Poll::Ready(Some(Ok(frame))) = body.as_mut().poll_frame(&mut cx()) else {
        unreachable!("the script has no frame");
    };
    let Ok(data) = frame.into_data() else {
        unreachable!("the frame is not data");
    };
    data
}

#[test]
fn copied_buffer_is_consumed() {
    let (mut world, index, mut body) = respond(Version::HTTP_11, [40], true);
    let mut data = data_of(&mut body);
    drop(body);
    let mut piece = world.framing(index, 5);
    world.oracle().responses[index].is_whole = true;
    for part in [30, 10] {
        assert_eq!(data.copy_to_bytes(part), vec![0; part]);
        world.oracle().responses[index].total_bytes += part;
        world.write(&mut Piece::Copied(index, part), true);
    }
    assert!(!data.has_remaining());
    drop(data);
    world.write(&mut piece, true);
    world.flush(true);
    world.assert_all_called(|_| false);
    world.end();
}

#[test]
fn late_http1_waiter_is_called_immediately() {
    let (mut world, index, mut body) = respond(Version::HTTP_11, [40], false);
    let mut head = world.framing(index, 5);
    world.write(&mut head, true);
    world.flush(true);
    let data = data_of(&mut body);
    let mut piece = world.buffer(index, data);
    drop(body);
    world.oracle().responses[index].is_whole = true;
    world.write(&mut piece, true);
    world.flush(true);
    world.wait_for_all();
    world.assert_all_called(|_| false);
    world.end();
}

/// Over HTTP/2, a body is polled after its declared length until it reports its end, so a reset may
/// arrive in between.
#[test]
fn reset_does_not_flush_copied_bytes() {
    for empty_frame_is_polled in [false, true] {
        let (mut world, index, mut body) = respond(Version::HTTP_2, [3, 0], true);
        let data = data_of(&mut body);
        let frame = world.buffer(index, data);
        if empty_frame_is_polled {
            drop(data_of(&mut body));
        }
        // Other bytes of the connection are flushed.
        let mut head = world.framing(index, 9);
        world.write(&mut head, true);
        world.flush(true);
        let mut copied = World::copied(frame);
        world.oracle().responses[index].may_abort = true;
        drop(body);
        world.assert_all_called(|_| true);
        assert_eq!(world.oracle().responses[index].outcomes, []);
        world.write(&mut copied, true);
        world.flush(true);
        assert_eq!(
            world.oracle().responses[index].outcomes,
            [DeliveryOutcome::Flushed { bytes: 3 }]
        );
        world.end();
    }
}

#[test]
fn reset_after_last_flush_is_flushed() {
    let (mut world, index, mut body) = respond(Version::HTTP_2, [40, 0], true);
    let data = data_of(&mut body);
    let mut frame = world.buffer(index, data);
    world.write(&mut frame, true);
    world.flush(true);
    world.oracle().responses[index].may_abort = true;
    drop(body);
    assert_eq!(
        world.oracle().responses[index].outcomes,
        [DeliveryOutcome::Flushed { bytes: 40 }]
    );
    world.end();
}

/// h2 writes the rest of the frame, flushes, finds nothing more, and flushes again. No round follows.
#[test]
fn trailers_reset_in_mid_frame_are_aborted() {
    let mut world = World::new(Choices(VecDeque::new()), Version::HTTP_2);
    let script = Script {
        frames: [
            Frame::data(Bytes::from(vec![0; 40])),
            Frame::trailers(http::HeaderMap::new()),
        ]
        .into(),
        knows_its_length: false,
    };
    let (index, future) = world.ask(script, 40, true);
    world.wait_for(index);
    let mut body = World::body(future);
    let data = data_of(&mut body);
    let mut frame = world.buffer(index, data);
    // The trailers are queued behind the data.
    assert!(body.as_mut().poll_frame(&mut cx()).is_ready());
    drop(body);
    world.begin_round();
    world.write_some(&mut frame, 10);
    // The reset is read, and h2 discards the trailers.
    world.begin_round();
    world.oracle().responses[index].may_abort = true;
    world.write(&mut frame, true);
    world.flush(true);
    assert_eq!(world.oracle().responses[index].outcomes, []);
    world.flush(true);
    assert_eq!(
        world.oracle().responses[index].outcomes,
        [DeliveryOutcome::Aborted { bytes: 40 }]
    );
    world.end();
}

#[test]
fn aborted_response_counts_unwatched_bytes() {
    let (mut world, index, mut body) = respond(Version::HTTP_11, [40, 3], false);
    drop((data_of(&mut body), body));
    world.oracle().responses[index].may_abort = true;
    world.wait_for_all();
    assert_eq!(
        world.oracle().responses[index].outcomes,
        [DeliveryOutcome::Aborted { bytes: 40 }]
    );
    world.end();
}

#[test]
fn vectored_writes_pass_through() {
    let (vectored, _client) = tokio::io::duplex(8);
    assert!(vectored.is_write_vectored() && SentIo::new(vectored).is_write_vectored());
    let world = World::new(Choices(VecDeque::new()), Version::HTTP_11);
    assert!(world.io.is_some_and(|io| !io.is_write_vectored()));
}

#[tokio::test(start_paused = true)]
async fn shutdown_reaches_transport() {
    let (mut client, server) = tokio::io::duplex(8);
    let mut io = SentIo::new(server);
    io.write_all(b"hello").await.unwrap();
    io.shutdown().await.unwrap();
    let mut received = Vec::new();
    let end = client.read_to_end(&mut received);
    tokio::time::timeout(std::time::Duration::from_secs(60), end)
        .await
        .expect("the client sees the end before the connection is dropped")
        .unwrap();
    assert_eq!(received, b"hello");
    drop(io);
}

//! A response on its way out, in every interleaving of the threads that know of it.
//!
//! The real bodies, buffers and connection, with this file in the place of h2: one thread polls
//! the body and puts its frames in a queue, another one writes, flushes and closes, a third one
//! defers late or holds the handler's handles. See [`crate::model`].

use self::server::{MESSAGE, OneFrame, Server, body};
use crate::model::{explore, explore_within};

mod server;

/// Nothing but the flushes of the response itself: a lost wake-up leaves the callback waiting.
fn is_sent_by_its_own_flush(tells_end: bool) {
    let server = Server::start();
    let (body, collection) = server.respond_deferring(body(tells_end));
    let writer = server.beside(|server| {
        server.write_and_flush();
        server.write_and_flush();
    });
    server.stream(body);
    writer.join().unwrap();
    server.write_the_rest();
    drop(collection);
    assert!(server.close(1));
}

#[test]
fn a_frame_that_ends_the_response_is_flushed_by_another_thread() {
    explore(
        "a frame that ends the response is flushed by another thread",
        || {
            is_sent_by_its_own_flush(true);
        },
    );
}

#[test]
fn an_end_of_its_own_is_flushed_by_another_thread() {
    explore_within(3, "an end of its own is flushed by another thread", || {
        is_sent_by_its_own_flush(false);
    });
}

/// The frame may be out before anybody watches, so the next bytes of the connection tell.
#[test]
fn the_first_push_while_the_response_goes_out() {
    explore_within(3, "the first push while the response goes out", || {
        let server = Server::start();
        let (body, collection) = server.respond(http::Version::HTTP_2, body(true), |_| {});
        let writer = server.beside(move |server| server.write_and_flush());
        let pusher = server.defer_beside(&collection);
        server.stream(body);
        writer.join().unwrap();
        pusher.join().unwrap();
        server.write_the_rest();
        drop(collection);
        assert!(server.close(1));
    });
}

#[test]
fn a_late_push_while_the_connection_closes() {
    explore_within(3, "a late push while the connection closes", || {
        let server = Server::start();
        let (body, collection) = server.respond_deferring(body(true));
        let writer = server.beside(|server| {
            server.write_and_flush();
            server.connection.closed();
        });
        let pusher = server.defer_beside(&collection);
        server.stream(body);
        writer.join().unwrap();
        pusher.join().unwrap();
        server.throw_away();
        drop(collection);
        server.close(2);
    });
}

#[test]
fn the_connection_closes_while_the_body_ends() {
    explore_within(3, "the connection closes while the body ends", || {
        let server = Server::start();
        let (body, collection) = server.respond_deferring(body(false));
        let closer = server.beside(|server| {
            server.write_and_flush();
            server.connection.closed();
        });
        server.stream(body);
        closer.join().unwrap();
        server.throw_away();
        drop(collection);
        server.close(1);
    });
}

fn is_aborted_or_sent_by_a_reset(tells_end: bool) {
    let server = Server::start();
    let (body, collection) = server.respond_deferring(body(tells_end));
    let resetter = server.beside(|server| {
        server.throw_away();
        server.write_and_flush();
    });
    server.stream(body);
    resetter.join().unwrap();
    server.write_the_rest();
    drop(collection);
    server.close(1);
}

#[test]
fn a_reset_throws_the_last_frame_away() {
    explore("a reset throws the last frame away", || {
        is_aborted_or_sent_by_a_reset(true);
    });
}

/// The handle may be over by the time that the body ends.
#[test]
fn a_reset_throws_a_frame_away_while_the_body_ends() {
    explore_within(3, "a reset throws a frame away while the body ends", || {
        is_aborted_or_sent_by_a_reset(false);
    });
}

/// Nothing of ours sees h2 drop what ends the response; a round without it tells.
#[test]
fn a_reset_throws_the_end_away_after_the_last_frame() {
    explore_within(
        3,
        "a reset throws the end away after the last frame",
        || {
            let server = Server::start();
            let (body, collection) = server.respond_deferring(body(false));
            let resetter = server.beside(|server| {
                server.write_and_flush();
                server.throw_away();
                server.write_and_flush();
            });
            server.stream(body);
            resetter.join().unwrap();
            server.write_and_flush();
            drop(collection);
            server.close(1);
        },
    );
}

/// The connection has no later round. So the second flush of this one must decide.
#[test]
fn a_reset_in_the_middle_of_the_last_frame() {
    explore_within(3, "a reset in the middle of the last frame", || {
        let server = Server::start();
        let (body, collection) = server.respond_deferring(body(false));
        server.stream(body);
        let writer = server.beside(|server| server.write_half_and_reset());
        let pusher = server.defer_beside(&collection);
        writer.join().unwrap();
        pusher.join().unwrap();
        drop(collection);
        assert!(!server.close(2));
    });
}

/// h2 has the whole response before anybody watches, and the body is dropped without having said
/// that it is over.
#[test]
fn the_first_push_after_a_body_is_dropped_at_its_declared_length() {
    explore(
        "the first push after a body is dropped at its length",
        || {
            let server = Server::start();
            let frame = OneFrame {
                declared: Some(MESSAGE.len() as u64),
                ..body(false)
            };
            let (body, collection) = server.respond_unwatched(frame);
            let writer = server.beside(move |server| server.write_and_flush());
            server.stream(body);
            server.defer(&collection);
            writer.join().unwrap();
            server.write_the_rest();
            drop(collection);
            assert!(server.close(1));
        },
    );
}

/// Over HTTP/1 one task does it all, beside whoever defers.
#[test]
fn the_first_push_while_an_http1_response_goes_out() {
    explore("the first push while an HTTP/1 response goes out", || {
        let server = Server::start();
        let (body, collection) = server.respond(http::Version::HTTP_11, body(false), |_| {});
        let pusher = server.defer_beside(&collection);
        server.stream(body);
        server.write_and_flush();
        pusher.join().unwrap();
        drop(collection);
        assert!(server.close(1));
    });
}

/// Two responses share one connection, and its list of those that wait.
#[test]
fn two_responses_wait_for_one_flush() {
    explore_within(3, "two responses wait for one flush", || {
        let server = Server::start();
        let mut bodies = Vec::new();
        let ledger = &server.ledger;
        let mut collections = Vec::new();
        for _ in 0..2 {
            let (body, collection) = server.respond(http::Version::HTTP_2, body(true), |_| {});
            bodies.push(body);
            collections.push(collection);
        }
        drop(ledger.defer(&collections[0]));
        drop(ledger.defer(&collections[1]));
        let streams: Vec<_> = bodies
            .into_iter()
            .map(|body| server.beside(move |server| server.stream(body)))
            .collect();
        server.write_and_flush();
        for stream in streams {
            stream.join().unwrap();
        }
        server.write_the_rest();
        drop(collections);
        assert!(server.close(2));
    });
}

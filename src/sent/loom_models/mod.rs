//! Models of a response that is sent, in every interleaving of its threads.
//!
//! They use the real bodies, buffers, and connection, and a small server instead of h2. One thread
//! polls the body and queues its frames, another one writes, flushes, and closes, and a third one
//! defers late or holds handles. See [`crate::loom_models`].

use self::server::{MESSAGE, OneFrame, Server, body};
use crate::loom_models::{explore, explore_within};

mod server;

/// No other response causes a flush, so the callback waits if a wake-up is lost.
fn is_completed_by_own_flush(signals_end: bool) {
    let server = Server::start();
    let (body, collection) = server.respond_deferring(body(signals_end));
    let writer = server.spawn(|server| {
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
fn last_frame_is_flushed_by_other_thread() {
    explore("the last frame is flushed by another thread", || {
        is_completed_by_own_flush(true);
    });
}

#[test]
fn separate_end_is_flushed_by_other_thread() {
    explore_within(3, "a separate end is flushed by another thread", || {
        is_completed_by_own_flush(false);
    });
}

/// The frame may be sent before it is watched. The next bytes of the connection decide then.
#[test]
fn first_push_races_with_write() {
    explore_within(3, "the first push while the response is written", || {
        let server = Server::start();
        let (body, collection) = server.respond(http::Version::HTTP_2, body(true), |_| {});
        let writer = server.spawn(move |server| server.write_and_flush());
        let pusher = server.spawn_defer(&collection);
        server.stream(body);
        writer.join().unwrap();
        pusher.join().unwrap();
        server.write_the_rest();
        drop(collection);
        assert!(server.close(1));
    });
}

#[test]
fn late_push_races_with_close() {
    explore_within(3, "a late push while the connection closes", || {
        let server = Server::start();
        let (body, collection) = server.respond_deferring(body(true));
        let writer = server.spawn(|server| {
            server.write_and_flush();
            server.connection.closed();
        });
        let pusher = server.spawn_defer(&collection);
        server.stream(body);
        writer.join().unwrap();
        pusher.join().unwrap();
        server.discard_queued();
        drop(collection);
        server.close(2);
    });
}

#[test]
fn close_races_with_body_end() {
    explore_within(3, "the connection closes while the body ends", || {
        let server = Server::start();
        let (body, collection) = server.respond_deferring(body(false));
        let closer = server.spawn(|server| {
            server.write_and_flush();
            server.connection.closed();
        });
        server.stream(body);
        closer.join().unwrap();
        server.discard_queued();
        drop(collection);
        server.close(1);
    });
}

fn is_decided_once_by_reset(signals_end: bool) {
    let server = Server::start();
    let (body, collection) = server.respond_deferring(body(signals_end));
    let resetter = server.spawn(|server| {
        server.discard_queued();
        server.write_and_flush();
    });
    server.stream(body);
    resetter.join().unwrap();
    server.write_the_rest();
    drop(collection);
    server.close(1);
}

#[test]
fn reset_races_with_last_frame() {
    explore("a reset while the last frame is queued", || {
        is_decided_once_by_reset(true);
    });
}

/// The response may be decided before its body ends.
#[test]
fn reset_races_with_body_end() {
    explore_within(3, "a reset while the body ends", || {
        is_decided_once_by_reset(false);
    });
}

/// h2 discards the end of the response silently. A round that does not write it shows this.
#[test]
fn reset_after_last_frame_discards_end() {
    explore_within(3, "a reset after the last frame", || {
        let server = Server::start();
        let (body, collection) = server.respond_deferring(body(false));
        let resetter = server.spawn(|server| {
            server.write_and_flush();
            server.discard_queued();
            server.write_and_flush();
        });
        server.stream(body);
        resetter.join().unwrap();
        server.write_and_flush();
        drop(collection);
        server.close(1);
    });
}

/// The connection has no later round, so the second flush of this one must decide.
#[test]
fn reset_in_mid_frame_aborts() {
    explore_within(3, "a reset in the middle of the last frame", || {
        let server = Server::start();
        let (body, collection) = server.respond_deferring(body(false));
        server.stream(body);
        let writer = server.spawn(|server| server.write_half_and_reset());
        let pusher = server.spawn_defer(&collection);
        writer.join().unwrap();
        pusher.join().unwrap();
        drop(collection);
        assert!(!server.close(2));
    });
}

/// h2 has the whole response before it is watched, and the body is dropped without reporting its end.
#[test]
fn first_push_after_body_dropped_at_length() {
    explore(
        "the first push after a body is dropped at its length",
        || {
            let server = Server::start();
            let frame = OneFrame {
                declared: Some(MESSAGE.len() as u64),
                ..body(false)
            };
            let (body, collection) = server.respond_unwatched(frame);
            let writer = server.spawn(move |server| server.write_and_flush());
            server.stream(body);
            server.defer(&collection);
            writer.join().unwrap();
            server.write_the_rest();
            drop(collection);
            assert!(server.close(1));
        },
    );
}

/// Over HTTP/1, one task polls and writes, concurrently with a task that defers.
#[test]
fn first_push_races_with_http1_write() {
    explore("the first push while an HTTP/1 response is written", || {
        let server = Server::start();
        let (body, collection) = server.respond(http::Version::HTTP_11, body(false), |_| {});
        let pusher = server.spawn_defer(&collection);
        server.stream(body);
        server.write_and_flush();
        pusher.join().unwrap();
        drop(collection);
        assert!(server.close(1));
    });
}

/// Two responses share the waiting list of one connection.
#[test]
fn one_flush_completes_two_responses() {
    explore_within(3, "two responses wait for one flush", || {
        let server = Server::start();
        let mut bodies = Vec::new();
        let record = &server.record;
        let mut collections = Vec::new();
        for _ in 0..2 {
            let (body, collection) = server.respond(http::Version::HTTP_2, body(true), |_| {});
            bodies.push(body);
            collections.push(collection);
        }
        drop(record.defer(&collections[0]));
        drop(record.defer(&collections[1]));
        let streams: Vec<_> = bodies
            .into_iter()
            .map(|body| server.spawn(move |server| server.stream(body)))
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

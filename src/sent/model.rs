//! A response on its way out, in every interleaving of the threads that know of it.
//!
//! The real bodies, buffers and connection, with this file in the place of h2: one thread polls
//! the body and puts its frames in a queue, another one writes, flushes and closes, a third one
//! defers late or holds the handler's handles. See [`crate::model`].

use std::{
    collections::VecDeque,
    convert::Infallible,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    task::{Context, Poll, Waker},
};

use bytes::{Buf, Bytes};
use http::{Request, Response, Version};
use http_body::{Body, Frame, SizeHint};

use super::{body::SentBody, buffer::SentBuf, connection::Connection, transmission::Transmission};
use crate::{
    completion::{Completion, Delivery, Level},
    defer::collection::DeferredCallbackCollection,
    model::{
        explore, explore_within,
        ledger::{Ended, Ledger},
    },
    response::{
        classify::Classifier,
        end_of_body::{EndOfBody, Exchange},
    },
    runner::completer::Completer,
    service::body::ResponseBody,
    sync::{Mutex, lock},
};

const MESSAGE: &[u8] = b"hello";
/// Of an HTTP/2 frame.
const HEAD: usize = 9;

/// One frame, after which it is over or after which only `None` tells.
struct OneFrame {
    frame: Option<Bytes>,
    tells_end: bool,
    declared: Option<u64>,
}

impl Body for OneFrame {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.frame.take().map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.tells_end && self.frame.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        self.declared.map(SizeHint::with_exact).unwrap_or_default()
    }
}

type WholeBody = SentBody<ResponseBody<OneFrame>>;

enum Queued {
    Data(SentBuf<Bytes>),
    EndOfStream,
}

/// The connection, and what the server has queued for it: with a lock of its own, as in h2.
#[derive(Clone)]
struct Server {
    ledger: Ledger,
    connection: Arc<Connection>,
    queue: Arc<Mutex<VecDeque<Queued>>>,
    /// Bytes of the body that a flush has covered.
    arrived: Arc<AtomicU64>,
}

impl Server {
    fn start() -> Self {
        Self {
            ledger: Ledger::open(),
            connection: Connection::new(None),
            queue: Arc::default(),
            arrived: Arc::default(),
        }
    }

    /// A request, and the body of its response.
    fn respond(
        &self,
        version: Version,
        body: OneFrame,
        handler: impl FnOnce(&DeferredCallbackCollection),
    ) -> (WholeBody, DeferredCallbackCollection) {
        let transmission = Transmission::new(self.connection.clone());
        let (completer, collection) = self.ledger.request(Some(transmission.clone()));
        handler(&collection);
        let scope = completer.scope().expect("it is not decided yet");
        scope.watch_if_shared();
        let body = self.send(version, body, completer, transmission);
        (body, collection)
    }

    /// A response over HTTP/2 whose body takes hold of the collection when it is polled, which
    /// nobody notices.
    fn respond_unwatched(&self, body: OneFrame) -> (WholeBody, DeferredCallbackCollection) {
        let transmission = Transmission::new(self.connection.clone());
        let (completer, collection) = self.ledger.request(Some(transmission.clone()));
        let body = self.send(Version::HTTP_2, body, completer, transmission);
        (body, collection)
    }

    fn send(
        &self,
        version: Version,
        body: OneFrame,
        completer: Completer,
        transmission: Transmission,
    ) -> WholeBody {
        let mut request = Request::new(());
        *request.version_mut() = version;
        let exchange = Exchange::of(&request);
        let mut response =
            ResponseBody::wrap(Response::new(body), exchange, Classifier::Status, completer);
        response.body_mut().handed_over();
        let end = EndOfBody::of(exchange, &response);
        let multiplexed = exchange.is_multiplexed;
        SentBody::new(response.into_body(), end, multiplexed, transmission)
    }

    /// What a server does with a body: the task of the stream over HTTP/2.
    fn stream(&self, mut body: WholeBody) {
        let cx = &mut Context::from_waker(Waker::noop());
        let declared = body.size_hint().exact();
        while !body.is_end_stream() {
            match Pin::new(&mut body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    if let Ok(data) = frame.into_data() {
                        self.enqueue(Queued::Data(data));
                    }
                    if declared.is_some() {
                        break;
                    }
                }
                Poll::Ready(None) => {
                    self.enqueue(Queued::EndOfStream);
                    break;
                }
                Poll::Ready(Some(Err(never))) => match never {},
                Poll::Pending => unreachable!("the frame is there"),
            }
        }
        self.ledger.pass();
        drop(body);
    }

    fn enqueue(&self, queued: Queued) {
        lock(&self.queue).push_back(queued);
    }

    /// What a connection does when it is polled: it reads, writes what is queued, and flushes.
    fn write_and_flush(&self) {
        self.connection.wire.reading();
        let queued = self.take_queued();
        let mut written = 0;
        for queued in queued {
            match queued {
                Queued::Data(mut data) => {
                    let length = data.remaining();
                    self.connection.wire.wrote(HEAD + length);
                    data.advance(length);
                    written += length as u64;
                }
                Queued::EndOfStream => self.connection.wire.wrote(HEAD),
            }
        }
        self.arrived.fetch_add(written, SeqCst);
        self.connection.flushed();
    }

    /// What the connection still does when all other threads are done: nothing, unless there is
    /// something to write. So a wake-up that was lost before leaves the callback waiting.
    fn write_the_rest(&self) {
        if !lock(&self.queue).is_empty() {
            self.write_and_flush();
        }
    }

    /// The client resets the stream.
    fn throw_away(&self) {
        drop(self.take_queued());
    }

    fn take_queued(&self) -> Vec<Queued> {
        lock(&self.queue).drain(..).collect()
    }

    /// A callback that must not run before the client can have the whole message.
    #[track_caller]
    fn defer(&self, collection: &DeferredCallbackCollection) {
        let arrived = self.arrived.clone();
        drop(
            self.ledger
                .defer_with(collection, move |completion: Completion| {
                    assert_eq!(completion.level(), Level::Sent);
                    match completion.delivery() {
                        Delivery::Sent => {
                            assert_eq!(completion.bytes_sent(), MESSAGE.len() as u64);
                            assert_eq!(arrived.load(SeqCst), MESSAGE.len() as u64, "too early");
                        }
                        Delivery::Aborted => {}
                        other => panic!("{other:?}"),
                    }
                    async {}
                }),
        );
    }

    /// Everything ran; whether under the completion of a response that was sent.
    fn close(self, count: usize) -> bool {
        let Self {
            ledger, connection, ..
        } = self;
        drop(connection);
        let closed = ledger.close();
        assert_eq!(closed.ends, vec![Ended::Ran; count]);
        let mut deliveries = closed.completions.iter().map(Completion::is_delivered);
        let first = deliveries.next().unwrap();
        assert!(deliveries.all(|other| other == first));
        first
    }
}

fn body(tells_end: bool) -> OneFrame {
    OneFrame {
        frame: Some(Bytes::from_static(MESSAGE)),
        tells_end,
        declared: None,
    }
}

/// Nothing but the flushes of the response itself: a lost wake-up leaves the callback waiting.
fn is_sent_by_its_own_flush(tells_end: bool) {
    let server = Server::start();
    let (body, collection) = server.respond(Version::HTTP_2, body(tells_end), |collection| {
        server.defer(collection);
    });
    let writer = {
        let server = server.clone();
        loom::thread::spawn(move || {
            server.write_and_flush();
            server.write_and_flush();
        })
    };
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
        let (body, collection) = server.respond(Version::HTTP_2, body(true), |_| {});
        let writer = {
            let server = server.clone();
            loom::thread::spawn(move || server.write_and_flush())
        };
        let pusher = {
            let (server, collection) = (server.clone(), collection.clone());
            loom::thread::spawn(move || server.defer(&collection))
        };
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
        let (body, collection) = server.respond(Version::HTTP_2, body(true), |collection| {
            server.defer(collection);
        });
        let writer = {
            let server = server.clone();
            loom::thread::spawn(move || {
                server.write_and_flush();
                server.connection.closed();
            })
        };
        let pusher = {
            let (server, collection) = (server.clone(), collection.clone());
            loom::thread::spawn(move || server.defer(&collection))
        };
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
        let (body, collection) = server.respond(Version::HTTP_2, body(false), |collection| {
            server.defer(collection);
        });
        let closer = {
            let server = server.clone();
            loom::thread::spawn(move || {
                server.write_and_flush();
                server.connection.closed();
            })
        };
        server.stream(body);
        closer.join().unwrap();
        server.throw_away();
        drop(collection);
        server.close(1);
    });
}

fn is_aborted_or_sent_by_a_reset(tells_end: bool) {
    let server = Server::start();
    let (body, collection) = server.respond(Version::HTTP_2, body(tells_end), |collection| {
        server.defer(collection);
    });
    let resetter = {
        let server = server.clone();
        loom::thread::spawn(move || {
            server.throw_away();
            server.write_and_flush();
        })
    };
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

/// The transmission may be over by the time that the body ends.
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
            let (body, collection) = server.respond(Version::HTTP_2, body(false), |collection| {
                server.defer(collection);
            });
            let resetter = {
                let server = server.clone();
                loom::thread::spawn(move || {
                    server.write_and_flush();
                    server.throw_away();
                    server.write_and_flush();
                })
            };
            server.stream(body);
            resetter.join().unwrap();
            server.write_and_flush();
            drop(collection);
            server.close(1);
        },
    );
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
            let writer = {
                let server = server.clone();
                loom::thread::spawn(move || server.write_and_flush())
            };
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
        let (body, collection) = server.respond(Version::HTTP_11, body(false), |_| {});
        let pusher = {
            let (server, collection) = (server.clone(), collection.clone());
            loom::thread::spawn(move || server.defer(&collection))
        };
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
            let (body, collection) = server.respond(Version::HTTP_2, body(true), |_| {});
            bodies.push(body);
            collections.push(collection);
        }
        drop(ledger.defer(&collections[0]));
        drop(ledger.defer(&collections[1]));
        let streams: Vec<_> = bodies
            .into_iter()
            .map(|body| {
                let server = server.clone();
                loom::thread::spawn(move || server.stream(body))
            })
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

//! A small server instead of h2.

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

use super::super::{
    body::SentBody, buf::SentBuf, connection::Connection, response::ResponseHandle,
};
use crate::{
    completion::{Completion, Delivery, Level},
    defer::collection::DeferredCallbackCollection,
    loom_models::run_record::{Ended, RunRecord},
    response::end_of_body::{EndOfBody, Exchange},
    runner::completion_guard::CompletionGuard,
    service::body::ResponseBody,
    sync::{Mutex, lock},
};

pub(super) const MESSAGE: &[u8] = b"hello";
/// The length of an HTTP/2 frame header.
const HEAD: usize = 9;

/// A body of one frame. Its end is known with the frame, or only with `None`.
pub(super) struct OneFrame {
    pub(super) frame: Option<Bytes>,
    pub(super) signals_end: bool,
    pub(super) declared: Option<u64>,
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
        self.signals_end && self.frame.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        self.declared.map(SizeHint::with_exact).unwrap_or_default()
    }
}

pub(super) type WholeBody = SentBody<ResponseBody<OneFrame>>;

fn exchange(version: Version) -> Exchange {
    let mut request = Request::new(());
    *request.version_mut() = version;
    Exchange::of(&request)
}

enum Queued {
    Data(SentBuf<Bytes>),
    EndOfStream,
}

/// A connection, and the frames that are queued for it, with a lock of their own as in h2.
#[derive(Clone)]
pub(super) struct Server {
    pub(super) record: RunRecord,
    pub(super) connection: Arc<Connection>,
    queue: Arc<Mutex<VecDeque<Queued>>>,
    /// Bytes of the body that a flush has covered.
    flushed_bytes: Arc<AtomicU64>,
}

impl Server {
    pub(super) fn start() -> Self {
        Self {
            record: RunRecord::open(),
            connection: Connection::new(),
            queue: Arc::default(),
            flushed_bytes: Arc::default(),
        }
    }

    /// Opens a request, and returns the body of its response.
    pub(super) fn respond(
        &self,
        version: Version,
        body: OneFrame,
        handler: impl FnOnce(&DeferredCallbackCollection),
    ) -> (WholeBody, DeferredCallbackCollection) {
        let exchange = exchange(version);
        let handle = ResponseHandle::new(self.connection.clone(), exchange);
        let (guard, collection) = self.record.request(Some(handle.clone()));
        handler(&collection);
        let scope = guard.scope().expect("the scope is not decided yet");
        scope.head_ready();
        let body = self.send(exchange, body, guard, handle);
        (body, collection)
    }

    /// Returns an HTTP/2 response to a request that has deferred something.
    #[track_caller]
    pub(super) fn respond_deferring(
        &self,
        body: OneFrame,
    ) -> (WholeBody, DeferredCallbackCollection) {
        self.respond(Version::HTTP_2, body, |collection| self.defer(collection))
    }

    /// Returns an HTTP/2 response whose body takes the collection when it is polled.
    pub(super) fn respond_unwatched(
        &self,
        body: OneFrame,
    ) -> (WholeBody, DeferredCallbackCollection) {
        let exchange = exchange(Version::HTTP_2);
        let handle = ResponseHandle::new(self.connection.clone(), exchange);
        let (guard, collection) = self.record.request(Some(handle.clone()));
        let body = self.send(exchange, body, guard, handle);
        (body, collection)
    }

    fn send(
        &self,
        exchange: Exchange,
        body: OneFrame,
        guard: CompletionGuard,
        handle: ResponseHandle,
    ) -> WholeBody {
        let response = ResponseBody::wrap(Response::new(body), exchange, None, guard, true);
        let end = EndOfBody::of(exchange, &response);
        let multiplexed = exchange.is_multiplexed;
        SentBody::new(response.into_body(), end, multiplexed, handle)
    }

    /// Polls a body to its end, like the task of an HTTP/2 stream.
    pub(super) fn stream(&self, mut body: WholeBody) {
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
                Poll::Pending => unreachable!("the body is never pending"),
            }
        }
        self.record.pass();
        drop(body);
    }

    /// Runs `steps` on another thread.
    pub(super) fn spawn(
        &self,
        steps: impl FnOnce(&Self) + Send + 'static,
    ) -> loom::thread::JoinHandle<()> {
        let server = self.clone();
        loom::thread::spawn(move || steps(&server))
    }

    /// Defers on another thread.
    #[track_caller]
    pub(super) fn spawn_defer(
        &self,
        collection: &DeferredCallbackCollection,
    ) -> loom::thread::JoinHandle<()> {
        let collection = collection.clone();
        self.spawn(move |server| server.defer(&collection))
    }

    fn add_written(&self, bytes: usize) {
        self.connection.progress.add_written(bytes, bytes);
    }

    fn enqueue(&self, queued: Queued) {
        lock(&self.queue).push_back(queued);
    }

    /// Polls the connection: reads, writes the queued frames, and flushes.
    pub(super) fn write_and_flush(&self) {
        self.connection.progress.begin_round();
        let queued = self.take_queued();
        let mut written = 0;
        for queued in queued {
            match queued {
                Queued::Data(mut data) => {
                    let length = data.remaining();
                    self.add_written(HEAD + length);
                    data.advance(length);
                    written += length as u64;
                }
                Queued::EndOfStream => self.add_written(HEAD),
            }
        }
        self.flushed_bytes.fetch_add(written, SeqCst);
        self.connection.flushed();
    }

    /// Polls a connection whose client resets the stream in the middle of a frame: reads the reset,
    /// writes the rest of the frame, flushes, finds nothing more, and flushes again.
    pub(super) fn write_half_and_reset(&self) {
        self.connection.progress.begin_round();
        let mut frames = self.take_queued();
        self.connection.progress.begin_round();
        // h2 discards the frames behind this one.
        frames.truncate(1);
        self.discard_queued();
        for queued in frames {
            if let Queued::Data(mut data) = queued {
                let length = data.remaining();
                self.add_written(HEAD + length);
                data.advance(length);
            }
        }
        self.connection.flushed();
        self.discard_queued();
        self.connection.flushed();
    }

    /// Polls the connection after all other threads, but only if there is something to write, so that
    /// a lost wake-up leaves the callback waiting.
    pub(super) fn write_the_rest(&self) {
        if !lock(&self.queue).is_empty() {
            self.write_and_flush();
        }
    }

    /// Discards the queued frames, as h2 does after a reset.
    pub(super) fn discard_queued(&self) {
        drop(self.take_queued());
    }

    fn take_queued(&self) -> Vec<Queued> {
        lock(&self.queue).drain(..).collect()
    }

    /// Registers a callback that must not run before the whole message is flushed.
    #[track_caller]
    pub(super) fn defer(&self, collection: &DeferredCallbackCollection) {
        let flushed_bytes = self.flushed_bytes.clone();
        drop(
            self.record
                .defer_with(collection, move |completion: Completion| {
                    assert_eq!(completion.level(), Level::Flushed);
                    match completion.delivery() {
                        Delivery::Complete => {
                            assert_eq!(completion.body_bytes(), MESSAGE.len() as u64);
                            assert_eq!(
                                flushed_bytes.load(SeqCst),
                                MESSAGE.len() as u64,
                                "too early"
                            );
                        }
                        Delivery::Aborted => {}
                        other => panic!("{other:?}"),
                    }
                    async {}
                }),
        );
    }

    /// Checks that all callbacks ran. Returns `true` if the response was complete.
    pub(super) fn close(self, count: usize) -> bool {
        let Self {
            record, connection, ..
        } = self;
        drop(connection);
        let closed = record.close();
        assert_eq!(closed.ends, vec![Ended::Ran; count]);
        let mut deliveries = closed.completions.iter().map(Completion::is_complete);
        let first = deliveries.next().unwrap();
        assert!(deliveries.all(|other| other == first));
        first
    }
}

pub(super) fn body(signals_end: bool) -> OneFrame {
    OneFrame {
        frame: Some(Bytes::from_static(MESSAGE)),
        signals_end,
        declared: None,
    }
}

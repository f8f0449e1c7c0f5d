//! The response to one request, shared by the layers that defer and the body that sends.

use std::{fmt, sync::Arc};

#[cfg(feature = "serve")]
use super::delivery::SharedDelivery;
use super::{
    connection::Connection,
    delivery::{DeliveryOutcome, Flush, ResponseDelivery, Waiter},
    flush::FlushTarget,
};
#[cfg(feature = "serve")]
use crate::drain::ShutdownSignal;
use crate::{drain::DrainSource, response::end_of_body::Exchange};

pub(crate) use super::delivery::OnStall;

/// A handle to one response and its connection. The extensions of the request hold one, for the layers
/// inside.
///
/// The response is complete when its body has ended, every buffer of it has been consumed (written, or
/// copied to be written), and the connection was flushed after that.
#[derive(Clone)]
pub(crate) struct ResponseHandle(Arc<Inner>);

struct Inner {
    connection: Arc<Connection>,
    is_multiplexed: bool,
    delivery: ResponseDelivery,
}

impl AsRef<ResponseDelivery> for Inner {
    fn as_ref(&self) -> &ResponseDelivery {
        &self.delivery
    }
}

impl ResponseHandle {
    /// Counts a request, which is in progress until its response is [taken](Self::taken).
    pub(super) fn new(connection: Arc<Connection>, exchange: Exchange) -> Self {
        connection.begin_request(exchange.is_multiplexed);
        Self(Arc::new(Inner {
            connection,
            is_multiplexed: exchange.is_multiplexed,
            delivery: ResponseDelivery::new(),
        }))
    }

    /// Watches the buffers that the server takes from now on.
    pub(crate) fn watch(&self) {
        self.0.delivery.watch();
    }

    /// Adds a layer to the drain of the server, if there is one.
    pub(crate) fn drain_with(&self, source: &Arc<impl DrainSource + 'static>) {
        self.0.connection.drain_with(source);
    }

    /// Returns the shutdown of the server, if the request came through `serve`.
    #[cfg(feature = "serve")]
    pub(crate) fn shutdown_signal(&self) -> Option<&ShutdownSignal> {
        self.0.connection.shutdown_signal()
    }

    /// Records that the server has taken the response to its end, has dropped it, or that there was
    /// none.
    pub(super) fn taken(&self) {
        self.0.connection.activity.end_response();
    }

    /// Records that the request has a scope, so that its body may still defer something.
    pub(crate) fn scope_opened(&self) {
        self.0.delivery.set_scope();
    }

    /// Calls `target` if the client accepts nothing of this HTTP/2 response for the stall timeout.
    pub(crate) fn on_stall(&self, target: Arc<dyn OnStall>) {
        #[cfg(feature = "serve")]
        self.0.delivery.on_stall(target);
        #[cfg(not(feature = "serve"))]
        drop(target);
    }

    /// Calls `waiter` once, when the outcome of the response is known.
    pub(crate) fn on_delivery(&self, waiter: impl FnOnce(DeliveryOutcome) + Send + 'static) {
        let waiter: Waiter = Box::new(waiter);
        self.await_flush(self.0.delivery.on_delivery(waiter));
    }

    pub(super) fn is_watched(&self) -> bool {
        self.0.delivery.is_watched()
    }

    pub(super) fn has_scope(&self) -> bool {
        self.0.delivery.has_scope()
    }

    /// Returns the number of bytes of responses that were written to the connection.
    pub(super) fn offset(&self) -> u64 {
        self.0.connection.progress.offset()
    }

    /// Returns the flush that covers the current writes of the task that owns the IO.
    pub(super) fn next_flush(&self) -> Flush {
        Flush::Number(self.0.connection.progress.next_flush())
    }

    /// Lets the connection abort this HTTP/2 response if it makes no progress for too long.
    pub(super) fn abort_if_stalled(&self) {
        #[cfg(feature = "serve")]
        {
            let delivery: Arc<SharedDelivery> = self.0.clone();
            self.0.connection.add_stream(Arc::downgrade(&delivery));
        }
    }

    /// Records that the body of an HTTP/2 response has ended, or whether its last poll returned a
    /// frame.
    pub(super) fn set_has_bytes(&self, has_bytes: bool) {
        self.0.delivery.set_has_bytes(has_bytes);
    }

    /// Counts the body of an HTTP/2 response as one that has something to send, or no longer has.
    pub(super) fn set_sending(&self, is_sending: bool) {
        self.0.connection.activity.set_sending(is_sending);
    }

    /// Counts bytes of a watched buffer that were consumed.
    pub(super) fn add_consumed(&self, bytes: u64) {
        self.0.delivery.add_consumed(bytes);
    }

    /// Counts an HTTP/2 frame that the server has to send. Returns `false` if nothing counts them.
    pub(super) fn begin_frame(&self) -> bool {
        self.0.is_multiplexed && self.0.connection.begin_frame()
    }

    /// Counts bytes of counted frames that the server has written, or copied to be written.
    pub(super) fn add_sent(&self, bytes: u64) {
        self.0.connection.activity.add_sent(bytes);
    }

    /// Records that the server has sent or dropped a counted frame.
    pub(super) fn end_frame(&self) {
        self.0.connection.activity.end_frame();
    }

    /// Records that the server has taken a buffer.
    pub(super) fn buffer_taken(&self) {
        self.0.delivery.buffer_taken();
    }

    /// Records that the task that owns the IO has consumed a buffer.
    pub(super) fn buffer_consumed(&self, bytes: u64) {
        let progress = &self.0.connection.progress;
        self.await_flush(self.0.delivery.buffer_consumed(bytes, progress));
    }

    /// Records that the server has dropped a buffer unconsumed.
    pub(super) fn buffer_discarded(&self, bytes: u64) {
        self.0.delivery.buffer_discarded(bytes);
    }

    /// Returns `true` if there is another handle, which could ask for the outcome.
    pub(super) fn is_shared(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }

    /// Records the end of the body, of which `unwatched` bytes passed before it was watched.
    pub(super) fn ended(&self, flush: Flush, unwatched: u64) {
        self.await_flush(self.0.delivery.ended(flush, unwatched));
    }

    /// Records that all of the response is in h2's queue, behind only watched buffers.
    pub(super) fn queued(&self) {
        self.0.delivery.queued(&self.0.connection.progress);
    }

    /// Records that the response ended before its body, or that there was none.
    pub(super) fn abort(&self, unwatched: u64) {
        self.0.delivery.abort(unwatched);
    }

    fn await_flush(&self, target: Option<FlushTarget>) {
        if let Some(target) = target {
            self.0.connection.await_flush(self.0.clone(), target);
        }
    }
}

impl fmt::Debug for ResponseHandle {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.delivery.fmt(formatter)
    }
}

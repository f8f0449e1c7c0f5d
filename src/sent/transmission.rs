//! The response to one request, as those know it who defer, and who send it.

use std::{fmt, sync::Arc};

use super::{
    connection::Connection,
    departure::{Departing, Departure, Flush, Transmitted, Waiter},
    wire::Awaited,
};
#[cfg(feature = "serve")]
use crate::drain::stopping::Stopping;
use crate::{drain::drain::DrainSource, response::end_of_body::Exchange};

/// One response and its connection; in the extensions of the request, for the layers inside.
///
/// It is over when its body has ended, every buffer of it has been consumed (which a server does
/// when it writes a buffer, or copies it to write it), and the connection was flushed after that.
#[derive(Clone)]
pub(crate) struct Transmission(Arc<OnItsConnection>);

/// The two in one place, as each is shared by as many.
struct OnItsConnection {
    connection: Arc<Connection>,
    departure: Departure,
}

impl Departing for OnItsConnection {
    fn departure(&self) -> &Departure {
        &self.departure
    }
}

impl Transmission {
    /// A request has come. It is under way until its response is [`taken`](Self::taken).
    pub(super) fn new(connection: Arc<Connection>, exchange: Exchange) -> Self {
        connection.dialogue.begun(exchange.is_multiplexed);
        Self(Arc::new(OnItsConnection {
            connection,
            departure: Departure::new(),
        }))
    }

    /// Buffers taken from now on are watched, and a shutdown of the server drains this tracker.
    pub(crate) fn watch(&self, source: &Arc<impl DrainSource + 'static>) {
        self.0.departure.watch();
        self.0.connection.drains(source);
    }

    /// A shutdown of the server drains this tracker.
    pub(crate) fn drains(&self, source: &Arc<impl DrainSource + 'static>) {
        self.0.connection.drains(source);
    }

    /// The server that the request has come to, if it is one that drains.
    #[cfg(feature = "serve")]
    pub(crate) fn stopping(&self) -> Option<&Stopping> {
        self.0.connection.stopping()
    }

    /// The server has taken the response to its end, or has dropped it, or there was none.
    pub(super) fn taken(&self) {
        self.0.connection.dialogue.over();
    }

    /// A scope was opened for the request.
    pub(crate) fn scope_opened(&self) {
        self.0.departure.scope_opened();
    }

    /// Calls `waiter` as soon as the response is over; at once if it is.
    pub(crate) fn when_over(&self, waiter: impl FnOnce(Transmitted) + Send + 'static) {
        let waiter: Waiter = Box::new(waiter);
        self.await_flush(self.0.departure.when_over(waiter));
    }

    pub(super) fn is_watched(&self) -> bool {
        self.0.departure.is_watched()
    }

    pub(super) fn has_scope(&self) -> bool {
        self.0.departure.has_scope()
    }

    /// Bytes written to the connection so far.
    pub(super) fn written(&self) -> u64 {
        self.0.connection.wire.written()
    }

    /// The flush that covers what the task that owns the IO does now.
    pub(super) fn next_flush(&self) -> Flush {
        Flush::Number(self.0.connection.wire.next_flush())
    }

    /// The server takes a buffer.
    pub(super) fn buffer_taken(&self) {
        self.0.departure.buffer_taken();
    }

    /// A buffer was consumed, by the task that owns the IO.
    pub(super) fn buffer_consumed(&self, bytes: u64) {
        let wire = &self.0.connection.wire;
        self.await_flush(self.0.departure.buffer_consumed(bytes, wire));
    }

    /// The server threw a buffer away.
    pub(super) fn buffer_discarded(&self, bytes: u64) {
        self.0.departure.buffer_discarded(bytes);
    }

    /// Whether anybody else has it, and could want to know what becomes of it.
    pub(super) fn is_shared(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }

    /// The body has ended; `unwatched` bytes of it went by before anybody watched.
    pub(super) fn ended(&self, flush: Flush, unwatched: u64) {
        self.await_flush(self.0.departure.ended(flush, unwatched));
    }

    /// All of the response is in h2's queue, behind nothing but the buffers that are watched.
    pub(super) fn queued(&self) {
        self.0.departure.queued(&self.0.connection.wire);
    }

    /// The response ended before its body did, or there was none.
    pub(super) fn abort(&self, unwatched: u64) {
        self.0.departure.abort(unwatched);
    }

    fn await_flush(&self, awaited: Option<Awaited>) {
        if let Some(awaited) = awaited {
            self.0.connection.await_flush(&self.0, awaited);
        }
    }
}

impl fmt::Debug for Transmission {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.departure.fmt(formatter)
    }
}

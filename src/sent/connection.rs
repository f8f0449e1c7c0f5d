//! One connection: how far it has come, and which responses wait for it to come further.

use std::sync::Arc;

use super::{
    departure::Departing,
    dialogue::Dialogue,
    wire::{Awaited, Wire},
};
#[cfg(feature = "serve")]
use crate::drain::stopping::Stopping;
use crate::{
    drain::drain::{Drain, DrainSource},
    sync::{
        AtomicBool, Mutex,
        Ordering::{Relaxed, SeqCst},
        lock,
    },
};

#[derive(Default)]
pub(crate) struct Connection {
    pub(super) wire: Wire,
    pub(super) dialogue: Dialogue,
    /// Somebody waits for a flush, so a flush has to look.
    has_waiting: AtomicBool,
    waiting: Mutex<Waiting>,
    /// What the server drains when it shuts down.
    drained: Option<Arc<Drain>>,
}

#[derive(Default)]
struct Waiting {
    closed: bool,
    departures: Vec<(Arc<dyn Departing>, Awaited)>,
}

/// What has a time-out, each anew.
#[cfg(feature = "serve")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Awaits {
    /// The head of the request after so many others.
    Head(u64),
    /// The body of a request whose response is out, after so many reads.
    RestOfBody(u64),
    /// It is not the client: the app has such a body and does not take what has come of it. Nobody tells
    /// when it goes on.
    App,
}

/// The body of a request comes while this lives.
#[cfg(feature = "serve")]
pub(crate) struct RequestBodyComes {
    connection: Arc<Connection>,
    is_awaited: bool,
}

#[cfg(feature = "serve")]
impl RequestBodyComes {
    /// Whether the app waits for more of it.
    pub(crate) fn set_awaited(&mut self, is_awaited: bool) {
        if self.is_awaited != is_awaited {
            self.is_awaited = is_awaited;
            self.connection.dialogue.request_body_is_awaited(is_awaited);
        }
    }
}

#[cfg(feature = "serve")]
impl Drop for RequestBodyComes {
    fn drop(&mut self) {
        self.set_awaited(false);
        self.connection.dialogue.request_body_has_come();
    }
}

impl Connection {
    pub(super) fn new(drained: Option<Arc<Drain>>) -> Arc<Self> {
        Arc::new(Self {
            drained,
            ..Self::default()
        })
    }

    pub(super) fn drains(&self, source: &Arc<impl DrainSource + 'static>) {
        if let Some(drained) = &self.drained {
            drained.add(source);
        }
    }

    /// The server that this is a connection of, if it is one that drains.
    #[cfg(feature = "serve")]
    pub(super) fn stopping(&self) -> Option<&Stopping> {
        self.drained.as_deref().map(|drained| &drained.stopping)
    }

    /// Nothing has come yet that is a request over HTTP/1, or the beginning of HTTP/2, which the
    /// server answers with its settings.
    #[cfg(feature = "serve")]
    pub(crate) fn has_only_begun(&self) -> bool {
        !self.dialogue.is_http1() && self.wire.written() == 0
    }

    /// What has to come next, unless the server is at work: over HTTP/1, and before it is known that
    /// it is not.
    #[cfg(feature = "serve")]
    pub(crate) fn awaits(&self) -> Option<Awaits> {
        let dialogue = &self.dialogue;
        if !dialogue.is_http1() {
            return (self.wire.written() == 0).then_some(Awaits::Head(0));
        }
        if self.is_busy() || dialogue.is_held_up() {
            None
        } else if dialogue.awaits_request_body() {
            Some(Awaits::RestOfBody(dialogue.reads()))
        } else if dialogue.has_request_body() {
            Some(Awaits::App)
        } else {
            Some(Awaits::Head(dialogue.requests()))
        }
    }

    /// Whether some request has no response yet, or none that the server has taken to its end.
    #[cfg(feature = "serve")]
    pub(crate) fn is_busy(&self) -> bool {
        self.dialogue.is_busy()
    }

    /// The body of a request over HTTP/1 comes, until what is returned is dropped.
    #[cfg(feature = "serve")]
    pub(crate) fn request_body(self: &Arc<Self>) -> RequestBodyComes {
        self.dialogue.request_body_comes();
        RequestBodyComes {
            connection: self.clone(),
            is_awaited: false,
        }
    }

    #[cfg(feature = "serve")]
    pub(crate) fn listen_anew(&self) {
        self.dialogue.listen_anew();
    }

    /// Whether the other side of an HTTP/2 connection, on which nothing is under way, has sent
    /// nothing since [`listen_anew`](Self::listen_anew).
    #[cfg(feature = "serve")]
    pub(crate) fn is_silent(&self) -> bool {
        !self.dialogue.is_http1() && !self.is_busy() && !self.dialogue.has_heard()
    }

    /// The transport was flushed of all that was written to it.
    pub(super) fn flushed(&self) {
        self.wire.flushed();
        if self.has_waiting.load(SeqCst) {
            self.settle();
        }
    }

    /// The transport is gone, and all that was not flushed with it.
    pub(super) fn closed(&self) {
        let mut waiting = lock(&self.waiting);
        waiting.closed = true;
        let departures = std::mem::take(&mut waiting.departures);
        drop(waiting);
        for (departing, _) in departures {
            departing.departure().closed();
        }
    }

    pub(super) fn await_flush<D>(&self, departing: &Arc<D>, awaited: Awaited)
    where
        D: Departing + 'static,
    {
        let mut waiting = lock(&self.waiting);
        if waiting.closed {
            drop(waiting);
            if self.wire.covered().includes(awaited) {
                departing.departure().flushed();
            } else {
                departing.departure().closed();
            }
            return;
        }
        waiting.departures.push((departing.clone(), awaited));
        self.has_waiting.store(true, SeqCst);
        drop(waiting);
        // The flush may have come between the look at the counters and the push. One that finds
        // `has_waiting` unset has stored what it covers before, so it is seen here.
        let covered = self.wire.covered();
        if covered.includes(awaited) || departing.departure().was_dropped_by(covered.round) {
            self.settle();
        }
    }

    fn settle(&self) {
        let covered = self.wire.covered();
        // Over HTTP/1 there is one at a time, and no need to allocate for it.
        let mut first = None;
        let mut others = Vec::new();
        let mut waiting = lock(&self.waiting);
        let mut index = 0;
        while let Some((departing, awaited)) = waiting.departures.get(index) {
            let is_covered = covered.includes(*awaited);
            if is_covered || departing.departure().was_dropped_by(covered.round) {
                let (departing, _) = waiting.departures.remove(index);
                let over = (departing, is_covered);
                match first {
                    None => first = Some(over),
                    Some(_) => others.push(over),
                }
            } else {
                index += 1;
            }
        }
        if waiting.departures.is_empty() {
            self.has_waiting.store(false, Relaxed);
        }
        drop(waiting);
        let tell = |(departing, is_covered): (Arc<dyn Departing>, bool)| {
            if is_covered {
                departing.departure().flushed();
            } else {
                departing.departure().closed();
            }
        };
        if let Some(over) = first {
            tell(over);
        }
        // An iterator over none costs as much as all of this.
        if !others.is_empty() {
            others.into_iter().for_each(tell);
        }
    }
}

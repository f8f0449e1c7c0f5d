//! Connections in memory, which open, stall, split, reset, and close as their dice say.

use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::Duration,
};

use axum::serve::Listener;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::{Notify, mpsc},
    time::sleep,
};

use super::{
    dice::Dice,
    record::World,
    wire::{Http1, Http2, Wire},
};

/// What happens on a connection once the transport has accepted a number of bytes.
#[derive(Clone, Copy, Debug)]
enum Fault {
    StallWrites(Duration),
    StallFlush(Duration),
    StallReads(Duration),
    Reset,
}

struct State {
    number: usize,
    dice: Dice,
    /// Bytes from the client that the server has not read.
    to_server: VecDeque<u8>,
    server_has_read: u64,
    sent_to_server: u64,
    /// RST_STREAM frames on their way: the offset of their last byte, and the request.
    resets: VecDeque<(u64, u64)>,
    client_closed: bool,
    /// Bytes that the transport has accepted from the server and the client has not read.
    to_client: VecDeque<u8>,
    accepted: u64,
    capacity: usize,
    /// The most that one call takes.
    piece: u64,
    vectored: bool,
    /// Like a TLS stream whose flush waits for the socket.
    flush_waits_for_client: bool,
    faults: VecDeque<(u64, Fault)>,
    writes_stalled: bool,
    flush_stalled: bool,
    reads_stalled: bool,
    broken: bool,
    server_closed: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
    wire: Wire,
}

#[derive(Clone)]
struct Link {
    state: Arc<Mutex<State>>,
    /// Notified of everything that a client may wait for.
    changed: Arc<Notify>,
    world: World,
}

impl Link {
    fn new(number: usize, wire: Wire, calm: bool, mut dice: Dice, world: World) -> Self {
        let mut faults = Vec::new();
        for _ in 0..if calm { 0 } else { dice.below(3) } {
            let limit = dice.pick(&[50, 300, 3_000, 40_000]);
            let at = dice.below(limit);
            let fault = match dice.below(7) {
                0..=2 => Fault::StallWrites(dice.pause()),
                3..=4 => Fault::StallFlush(dice.pause()),
                5 => Fault::StallReads(dice.pause()),
                _ => Fault::Reset,
            };
            faults.push((at, fault));
        }
        faults.sort_by_key(|(at, _)| *at);
        let state = State {
            number,
            to_server: VecDeque::new(),
            server_has_read: 0,
            sent_to_server: 0,
            resets: VecDeque::new(),
            client_closed: false,
            to_client: VecDeque::new(),
            accepted: 0,
            capacity: dice.pick(&[64, 1_000, 20_000, 1_000_000]),
            piece: dice.pick(&[16, 300, 9_000, 1_000_000]),
            vectored: dice.one_in(2),
            flush_waits_for_client: dice.one_in(8),
            faults: faults.into(),
            writes_stalled: false,
            flush_stalled: false,
            reads_stalled: false,
            broken: false,
            server_closed: false,
            reader: None,
            writer: None,
            wire,
            dice,
        };
        Self {
            state: Arc::new(Mutex::new(state)),
            changed: Arc::default(),
            world,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state, and wakes both ends.
    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.lock();
        change(&mut state);
        let wakers = [state.reader.take(), state.writer.take()];
        drop(state);
        for waker in wakers.into_iter().flatten() {
            waker.wake();
        }
        self.changed.notify_waiters();
    }

    fn change_after(&self, pause: Duration, change: impl FnOnce(&mut State) + Send + 'static) {
        let link = self.clone();
        tokio::spawn(async move {
            sleep(pause).await;
            link.change(change);
        });
    }

    fn apply_faults(&self, state: &mut State) {
        while let Some((at, fault)) = state.faults.front().copied() {
            if at > state.accepted {
                break;
            }
            state.faults.pop_front();
            match fault {
                Fault::StallWrites(pause) => {
                    state.writes_stalled = true;
                    self.change_after(pause, |state| state.writes_stalled = false);
                }
                Fault::StallFlush(pause) => {
                    state.flush_stalled = true;
                    self.change_after(pause, |state| state.flush_stalled = false);
                }
                Fault::StallReads(pause) => {
                    state.reads_stalled = true;
                    self.change_after(pause, |state| state.reads_stalled = false);
                }
                Fault::Reset => {
                    state.broken = true;
                    state.reader.take().into_iter().for_each(Waker::wake);
                }
            }
        }
    }
}

impl State {
    fn check(&self) -> io::Result<()> {
        match self.broken {
            true => Err(io::ErrorKind::ConnectionReset.into()),
            false => Ok(()),
        }
    }

    /// A transport may return early although it is ready.
    fn pretends_to_be_busy(&mut self, cx: &Context<'_>) -> bool {
        let pretends = self.dice.one_in(16);
        if pretends {
            cx.waker().wake_by_ref();
        }
        pretends
    }
}

/// The end that the server gets.
pub struct ServerEnd(Link);

impl AsyncRead for ServerEnd {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let link = &self.0;
        let mut state = link.lock();
        state.check()?;
        let is_empty = state.to_server.is_empty();
        if state.reads_stalled || (is_empty && !state.client_closed) {
            state.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        if is_empty {
            return Poll::Ready(Ok(()));
        }
        if state.pretends_to_be_busy(cx) {
            return Poll::Pending;
        }
        let piece = state.piece;
        let piece = 1 + state.dice.below(piece) as usize;
        let length = piece.min(buf.remaining()).min(state.to_server.len());
        for byte in state.to_server.drain(..length) {
            buf.put_slice(&[byte]);
        }
        state.server_has_read += length as u64;
        while let Some((at, request)) = state.resets.front().copied() {
            if at > state.server_has_read {
                break;
            }
            state.resets.pop_front();
            link.world.reset_was_read(request);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ServerEnd {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[io::IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let link = &self.0;
        let mut guard = link.lock();
        let state = &mut *guard;
        link.apply_faults(state);
        state.check()?;
        let room = state.capacity.saturating_sub(state.to_client.len());
        if state.writes_stalled || room == 0 {
            state.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        if state.pretends_to_be_busy(cx) {
            return Poll::Pending;
        }
        let mut room = room.min(1 + state.dice.below(state.piece) as usize);
        if let Some((at, _)) = state.faults.front() {
            // So that the fault strikes at its byte.
            room = room.min((at - state.accepted) as usize);
        }
        let mut written = 0;
        let mut seen = Vec::new();
        for buf in bufs {
            let accepted = &buf[..buf.len().min(room - written)];
            state.to_client.extend(accepted);
            state.wire.accept(accepted, &mut seen);
            written += accepted.len();
        }
        state.accepted += written as u64;
        link.apply_faults(state);
        link.world.accepted(state.number, &seen);
        drop(guard);
        link.changed.notify_waiters();
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.0.lock().vectored
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let link = &self.0;
        let mut state = link.lock();
        state.check()?;
        let waits = state.flush_waits_for_client && !state.to_client.is_empty();
        if state.flush_stalled || waits {
            link.world.flush_is_blocked(state.number);
            state.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        link.world.flushed(state.number);
        drop(state);
        link.changed.notify_waiters();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let link = &self.0;
        let mut state = link.lock();
        state.check()?;
        state.server_closed = true;
        drop(state);
        link.changed.notify_waiters();
        Poll::Ready(Ok(()))
    }
}

impl Drop for ServerEnd {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.server_closed = true;
        state.broken = true;
        self.0.world.closed(state.number);
        drop(state);
        self.0.changed.notify_waiters();
    }
}

/// The end that a client has. The connection stays open when it is dropped.
#[derive(Clone)]
pub struct ClientEnd(Link);

impl ClientEnd {
    pub fn number(&self) -> usize {
        self.0.lock().number
    }

    pub fn send(&self, bytes: &[u8]) {
        self.0.change(|state| {
            if !state.client_closed {
                state.to_server.extend(bytes);
                state.sent_to_server += bytes.len() as u64;
            }
        });
    }

    /// Sends bytes that end with a reset of a request's stream.
    pub fn send_reset(&self, bytes: &[u8], request: u64) {
        self.0.change(|state| {
            if !state.client_closed {
                state.to_server.extend(bytes);
                state.sent_to_server += bytes.len() as u64;
                state.resets.push_back((state.sent_to_server, request));
            }
        });
    }

    /// Announces a request to the reader of the responses.
    pub fn expect(&self, request: u64, head_only: bool) {
        if let Wire::Http1(wire) = &mut self.0.lock().wire {
            wire.expect(request, head_only);
        }
    }

    pub fn open_stream(&self, stream: u32, request: u64) {
        if let Wire::Http2(wire) = &mut self.0.lock().wire {
            wire.open(stream, request);
        }
    }

    /// Sends no more.
    pub fn close(&self) {
        self.0.change(|state| state.client_closed = true);
    }

    pub fn reset(&self) {
        self.0.change(|state| state.broken = true);
    }

    pub fn is_gone(&self) -> bool {
        let state = self.0.lock();
        state.broken || state.server_closed
    }

    /// Takes at most `limit` of the bytes that have come.
    pub fn take(&self, limit: usize) -> Vec<u8> {
        let mut taken = Vec::new();
        self.0.change(|state| {
            let length = limit.min(state.to_client.len());
            taken.extend(state.to_client.drain(..length));
        });
        taken
    }

    /// Waits until there are bytes to take. Returns `false` if none will come.
    pub async fn readable(&self) -> bool {
        loop {
            let changed = self.0.changed.notified();
            {
                let state = self.0.lock();
                if state.broken {
                    return false;
                }
                if !state.to_client.is_empty() {
                    return true;
                }
                if state.server_closed {
                    return false;
                }
            }
            changed.await;
        }
    }

    /// Waits until something holds, or the connection is gone. Returns `false` in that case.
    pub async fn until(&self, holds: impl Fn() -> bool) -> bool {
        loop {
            let changed = self.0.changed.notified();
            if holds() {
                return true;
            }
            if self.is_gone() {
                return false;
            }
            changed.await;
        }
    }

    pub async fn until_gone(&self) {
        self.until(|| false).await;
    }
}

/// Opens connections to the server.
#[derive(Clone)]
pub struct Network {
    accepts: mpsc::UnboundedSender<ServerEnd>,
    world: World,
    calm: bool,
}

#[derive(Clone, Copy, Debug)]
pub enum Protocol {
    Http1,
    Http2,
    Raw,
}

impl Network {
    /// A `calm` network has no faults of its own.
    pub fn new(world: &World, calm: bool) -> (Self, SimulatedListener) {
        let (accepts, accepted) = mpsc::unbounded_channel();
        let network = Self {
            accepts,
            world: world.clone(),
            calm,
        };
        let listener = SimulatedListener {
            accepted,
            world: world.clone(),
        };
        (network, listener)
    }

    /// Returns `None` if the server no longer accepts.
    pub fn connect(&self, protocol: Protocol, dice: Dice) -> Option<ClientEnd> {
        let wire = match protocol {
            Protocol::Http1 => Wire::Http1(Http1::default()),
            Protocol::Http2 => Wire::Http2(Http2::default()),
            Protocol::Raw => Wire::Raw,
        };
        let number = self.world.connect();
        let link = Link::new(number, wire, self.calm, dice, self.world.clone());
        self.accepts.send(ServerEnd(link.clone())).ok()?;
        Some(ClientEnd(link))
    }
}

pub struct SimulatedListener {
    accepted: mpsc::UnboundedReceiver<ServerEnd>,
    world: World,
}

impl Listener for SimulatedListener {
    type Io = ServerEnd;
    type Addr = usize;

    async fn accept(&mut self) -> (ServerEnd, usize) {
        match self.accepted.recv().await {
            Some(io) => {
                let number = io.0.lock().number;
                self.world.accept(number);
                (io, number)
            }
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<usize> {
        Ok(0)
    }
}
